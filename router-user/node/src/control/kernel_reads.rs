//! Answers that a whole table of the kernel is read for.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::routing::{MethodRouter, get};
use tokio::sync::Semaphore;

use super::reply::{HttpRefusal, PrettyJson};
use super::{FlowList, FlowQuery, Source, SourceError};

/// Reads one table at a time.
#[derive(Clone)]
pub(crate) struct KernelReads {
    source: Arc<dyn Source>,
    turns: Arc<Semaphore>,
}

impl KernelReads {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            turns: Arc::new(Semaphore::new(1)),
        }
    }

    /// Reads on a thread of its own, as it takes long.
    pub(crate) async fn read<R: Send + 'static>(
        self,
        read: impl FnOnce(&dyn Source) -> Result<R, SourceError> + Send + 'static,
    ) -> Result<PrettyJson<R>, HttpRefusal> {
        let turn = self.turns.acquire_owned().await;
        let turn = turn.map_err(|_closed| HttpRefusal::stopping())?;
        let source = self.source;
        let answer = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read(source.as_ref())
        });
        Ok(PrettyJson(
            answer
                .await
                .map_err(|_stopping_or_panic| HttpRefusal::stopping())??,
        ))
    }

    /// Returns the route of the flows.
    pub(crate) fn flows<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        get(get_flows).with_state(self)
    }
}

async fn get_flows(
    State(reads): State<KernelReads>,
    RawQuery(query): RawQuery,
) -> Result<PrettyJson<FlowList>, HttpRefusal> {
    let query = FlowQuery::parse(query.as_deref().unwrap_or_default()).map_err(HttpRefusal::query)?;
    reads.read(move |source| source.flows(&query)).await
}
