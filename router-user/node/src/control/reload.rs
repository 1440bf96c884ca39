//! The requests that make the node read its configuration again: as it is, or with another peer, or without one.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot};

use super::reload_request::{ReloadRefusal, ReloadRequest};
use super::reply::{HttpRefusal, NoQuery, PrettyJson};
use super::{NewPeer, PeerChange, PeerList, Reload, Resource};

/// Path of a peer that is to be removed.
pub(crate) const PEER_PATH: &str = "/v1/peers/{peer}";

type Reloads = Option<mpsc::Sender<ReloadRequest>>;

/// Returns the routes of what changes the configuration: `POST` to reload and to add a peer, `DELETE` to remove one.
pub(crate) fn change_routes<S: Clone + Send + Sync + 'static>(reloads: Reloads) -> Router<S> {
    Router::new()
        .route(Reload::PATH, post(post_reload))
        .route(PeerList::PATH, post(post_peer))
        .route(PEER_PATH, delete(delete_peer))
        .with_state(reloads)
}

async fn post_reload(State(reloads): State<Reloads>, _: NoQuery) -> Result<PrettyJson<Reload>, Response> {
    ask(reloads, None).await
}

async fn post_peer(
    State(reloads): State<Reloads>,
    _: NoQuery,
    body: Result<Json<NewPeer>, JsonRejection>,
) -> Result<PrettyJson<Reload>, Response> {
    let Json(peer) = body.map_err(|wrong| HttpRefusal::from(wrong).into_response())?;
    ask(reloads, Some(PeerChange::Add(Box::new(peer)))).await
}

async fn delete_peer(
    State(reloads): State<Reloads>,
    Path(peer): Path<String>,
    _: NoQuery,
) -> Result<PrettyJson<Reload>, Response> {
    ask(reloads, Some(PeerChange::Remove(peer))).await
}

async fn ask(reloads: Reloads, change: Option<PeerChange>) -> Result<PrettyJson<Reload>, Response> {
    let (reply, answer) = oneshot::channel();
    let refusal = |code, why: String| HttpRefusal::new(code, why).into_response();
    let Some(reloads) = reloads else {
        let why = "this node was started without a configuration file".to_owned();
        return Err(refusal(StatusCode::CONFLICT, why));
    };
    let stopping = || HttpRefusal::stopping().into_response();
    reloads
        .send(ReloadRequest { change, reply })
        .await
        .map_err(|_closed| stopping())?;
    match answer.await.map_err(|_closed| stopping())? {
        Ok(reload) => Ok(PrettyJson(reload)),
        Err(ReloadRefusal::File(problems)) => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, PrettyJson(problems)).into_response())
        }
        Err(ReloadRefusal::Failed(why) | ReloadRefusal::Busy(why)) => Err(refusal(StatusCode::CONFLICT, why)),
        Err(ReloadRefusal::Senseless(why)) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(ReloadRefusal::NoPeer(why)) => Err(refusal(StatusCode::NOT_FOUND, why)),
        Err(ReloadRefusal::Unwritable(why)) => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, why)),
    }
}
