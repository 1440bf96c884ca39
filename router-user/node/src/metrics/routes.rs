//! The paths that are served.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tracing::warn;

use super::access::authorize;
use super::collect::{CollectError, open_metrics};
use super::guard::{Hosts, guard};
use super::history::Recorder;
use super::page::get_page;
use super::plain_text::from_open_metrics;
use super::{CheckState, History, MetricsSources};
use crate::control::{
    CounterList, EventList, FlowList, HttpRefusal, InviteStatus, KernelReads, MAX_BODY_BYTES, NoQuery,
    PeerList, PrettyJson, Resource, Status, StreamList, WorkerList, change_routes, resource_routes,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every path that is served.
pub(super) const PATHS: [&str; 11] = [
    "/",
    "/metrics",
    "/health",
    Status::PATH,
    PeerList::PATH,
    WorkerList::PATH,
    StreamList::PATH,
    CounterList::PATH,
    EventList::PATH,
    InviteStatus::PATH,
    History::PATH,
];

/// Builds the router of all paths. Whoever has no token gets no flows and routes, and can change nothing.
pub(super) fn app(sources: MetricsSources, history: Arc<Recorder>, hosts: Hosts) -> Router {
    let get_history = |_: NoQuery| async move { PrettyJson(history.history()) };
    Router::new()
        .route("/", get(get_page))
        .route("/metrics", get(get_metrics))
        .route("/health", get(get_health))
        .merge(resource_routes(sources.source.clone()))
        .route(History::PATH, get(get_history))
        .merge(with_token(&sources))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(hosts, guard))
        .with_state(sources)
}

/// Returns the routes for those who have the token.
fn with_token(sources: &MetricsSources) -> Router<MetricsSources> {
    let flows = KernelReads::new(sources.source.clone()).flows();
    Router::new()
        .route(FlowList::PATH, flows)
        .merge(change_routes(sources.reloads.clone()))
        .route_layer(middleware::from_fn_with_state(sources.access.clone(), authorize))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
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
    let (kind, text) = if wants_open_metrics(&headers) {
        (OPEN_METRICS, text)
    } else {
        (PLAIN_TEXT, from_open_metrics(&text))
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Returns whether the client asks for OpenMetrics by name, and not for plain text rather. Whoever takes anything gets plain
/// text, which every reader of metrics knows.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let open_metrics = preference(headers, "application/openmetrics-text");
    open_metrics > 0.0 && open_metrics >= preference(headers, "text/plain")
}

/// Returns how much the client wants this type, from 0 (not, or not named) to 1.
fn preference(headers: &HeaderMap, kind: &str) -> f32 {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let ranges = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let weights = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next()?.eq_ignore_ascii_case(kind);
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
        named.then(|| weight.unwrap_or(1.0))
    });
    weights.fold(0.0, f32::max)
}

async fn unknown_path(uri: Uri) -> HttpRefusal {
    let paths = PATHS.join(", ");
    HttpRefusal::new(
        StatusCode::NOT_FOUND,
        format!("there is no {}; there are {paths}", uri.path()),
    )
}

async fn unknown_method(method: Method, uri: Uri) -> HttpRefusal {
    let wrong = format!("{} takes no {method}", uri.path());
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
    fn open_metrics_is_for_those_who_ask_for_it_by_name() {
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                false,
            ),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), false),
            (Some("application/openmetrics-text"), true),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), true),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                ),
                true,
            ),
            (
                Some("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4"),
                false,
            ),
            (Some("application/openmetrics-text;q=0,*/*"), false),
            (Some("application/openmetrics-text;q=NaN"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(wants_open_metrics(&headers), expected, "{accept:?}");
        }
    }
}
