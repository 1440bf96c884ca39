//! The request that makes the node read its configuration file again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::Reload;
use super::reload_request::{ReloadRefusal, ReloadRequest};
use super::reply::{HttpRefusal, NoQuery, PrettyJson};

/// Answers `POST /v1/reload`.
pub(super) async fn post_reload(
    State(requests): State<Option<mpsc::Sender<ReloadRequest>>>,
    _: NoQuery,
) -> Result<PrettyJson<Reload>, Response> {
    let (reply, answer) = oneshot::channel();
    let Some(requests) = requests else {
        let reason = "this node was started without a configuration file".to_owned();
        return Err(HttpRefusal::new(StatusCode::CONFLICT, reason).into_response());
    };
    let stopping = || HttpRefusal::stopping().into_response();
    requests
        .send(ReloadRequest { reply })
        .await
        .map_err(|_closed| stopping())?;
    match answer.await {
        Ok(Ok(reload)) => Ok(PrettyJson(reload)),
        Ok(Err(ReloadRefusal::File(problems))) => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, PrettyJson(problems)).into_response())
        }
        Ok(Err(ReloadRefusal::Failed(reason))) => {
            Err(HttpRefusal::new(StatusCode::CONFLICT, reason).into_response())
        }
        Err(_closed) => Err(stopping()),
    }
}
