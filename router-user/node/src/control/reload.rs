//! Has the node read its configuration file again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::reply::{NoQuery, Pretty, Refusal};
use super::{Reload, ReloadProblems};
use crate::config::Problem;

/// A wish that the configuration file be read again.
#[derive(Debug)]
pub struct ReloadWish {
    /// Told what came of it.
    pub reply: oneshot::Sender<Result<Reload, ReloadRefusal>>,
}

/// Why the configuration file was not taken: nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadRefusal {
    /// The file is wrong, or cannot be read.
    File(ReloadProblems),
    /// The node cannot take what it says.
    Failed(String),
}

impl ReloadRefusal {
    /// The file is wrong.
    pub fn file(error: String, problems: &[Problem]) -> Self {
        Self::File(ReloadProblems {
            error,
            problems: problems.iter().map(Into::into).collect(),
        })
    }
}

/// Answers `POST /v1/reload`.
pub(super) async fn post_reload(
    State(wishes): State<Option<mpsc::Sender<ReloadWish>>>,
    _: NoQuery,
) -> Result<Pretty<Reload>, Response> {
    let (reply, answer) = oneshot::channel();
    let Some(wishes) = wishes else {
        let reason = "this node was started without a configuration file".to_owned();
        return Err(Refusal::new(StatusCode::CONFLICT, reason).into_response());
    };
    let stopping = || Refusal::stopping().into_response();
    wishes
        .send(ReloadWish { reply })
        .await
        .map_err(|_closed| stopping())?;
    match answer.await {
        Ok(Ok(reload)) => Ok(Pretty(reload)),
        Ok(Err(ReloadRefusal::File(problems))) => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, Pretty(problems)).into_response())
        }
        Ok(Err(ReloadRefusal::Failed(reason))) => {
            Err(Refusal::new(StatusCode::CONFLICT, reason).into_response())
        }
        Err(_closed) => Err(stopping()),
    }
}
