//! The paths that are served.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tracing::warn;

use super::collect::{CollectError, open_metrics};
use super::guard::{Hosts, guard};
use super::history::Recorder;
use super::page::get_page;
use super::plain_text::from_open_metrics;
use super::{CheckState, History, MetricsSources};
use crate::control::{
    CounterList, HttpRefusal, NoQuery, PeerList, PrettyJson, Resource, Status, StreamList, WorkerList,
    resource_routes,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every path that is served.
pub(super) const PATHS: [&str; 9] = [
    "/",
    "/metrics",
    "/health",
    Status::PATH,
    PeerList::PATH,
    WorkerList::PATH,
    StreamList::PATH,
    CounterList::PATH,
    History::PATH,
];

/// Builds the router of all paths. There is no password, so flows and routes are not served, and nothing can be
/// changed.
pub(super) fn app(sources: MetricsSources, history: Arc<Recorder>, hosts: Hosts) -> Router {
    let get_history = |_: NoQuery| async move { PrettyJson(history.history()) };
    Router::new()
        .route("/", get(get_page))
        .route("/metrics", get(get_metrics))
        .route("/health", get(get_health))
        .merge(resource_routes(sources.source.clone()))
        .route(History::PATH, get(get_history))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(hosts, guard))
        .with_state(sources)
}

async fn get_health(State(sources): State<MetricsSources>, _: NoQuery) -> Response {
    let health = (sources.health)();
    let code = match health.status {
        CheckState::Ok | CheckState::Degraded => StatusCode::OK,
        CheckState::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, PrettyJson(health)).into_response()
}

async fn get_metrics(
    State(sources): State<MetricsSources>,
    headers: HeaderMap,
) -> Result<Response, HttpRefusal> {
    let text = open_metrics(&sources)?;
    let (kind, text) = if wants_plain_text(&headers) {
        (PLAIN_TEXT, from_open_metrics(&text))
    } else {
        (OPEN_METRICS, text)
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Returns whether the client accepts plain text and not OpenMetrics, as browsers and older readers do.
fn wants_plain_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let names = |kind: &str| {
        let kinds = accepted.iter().flat_map(|value| value.split(','));
        let mut kinds = kinds.map(|range| range.split(';').next().unwrap_or_default().trim());
        kinds.any(|named| named.eq_ignore_ascii_case(kind))
    };
    let text = ["text/plain", "text/html", "text/*"].into_iter().any(names);
    text && !names("application/openmetrics-text")
}

async fn unknown_path(uri: Uri) -> HttpRefusal {
    let paths = PATHS.join(", ");
    HttpRefusal::new(
        StatusCode::NOT_FOUND,
        format!("there is no {}; there are {paths}", uri.path()),
    )
}

async fn unknown_method(method: Method, uri: Uri) -> HttpRefusal {
    let wrong = format!("{} takes no {method}; everything here is only read", uri.path());
    HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, wrong)
}

impl From<CollectError> for HttpRefusal {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Source(error) => error.into(),
            CollectError::Process(_) | CollectError::Encode(_) => {
                warn!(error = &error as &dyn std::error::Error, "cannot answer a scrape");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_all_who_do_not_ask_for_text() {
        for (accept, plain) in [
            (None, false),
            (Some("*/*"), false),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ),
                false,
            ),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), true),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                true,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(wants_plain_text(&headers), plain, "{accept:?}");
        }
    }
}
