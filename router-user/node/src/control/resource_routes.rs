//! The resources that every server of the node has.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use serde::Serialize;

use super::reply::{HttpRefusal, NoQuery, PrettyJson};
use super::{
    CounterList, EventList, InviteStatus, PeerList, Resource, Source, SourceError, Status, StreamList,
    WorkerList,
};

/// Returns the routes of what `source` tells without waiting and without a query.
pub(crate) fn resource_routes<S: Clone + Send + Sync + 'static>(source: Arc<dyn Source>) -> Router<S> {
    Router::new()
        .route(Status::PATH, resource(|source| Ok(source.status())))
        .route(PeerList::PATH, resource(|source| Ok(source.peers())))
        .route(WorkerList::PATH, resource(|source| Ok(source.workers())))
        .route(StreamList::PATH, resource(|source| Ok(source.streams())))
        .route(InviteStatus::PATH, resource(|source| Ok(source.invite())))
        .route(EventList::PATH, resource(|source| Ok(source.events())))
        .route(CounterList::PATH, resource(|source| source.counters()))
        .with_state(source)
}

fn resource<R: Serialize + 'static>(
    read: fn(&dyn Source) -> Result<R, SourceError>,
) -> MethodRouter<Arc<dyn Source>> {
    get(
        move |State(source): State<Arc<dyn Source>>, _: NoQuery| async move {
            read(source.as_ref()).map(PrettyJson).map_err(HttpRefusal::from)
        },
    )
}
