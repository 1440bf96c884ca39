//! Answers and refusals as HTTP.

use axum::extract::FromRequestParts;
use axum::extract::rejection::JsonRejection;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::warn;

use super::{ErrorBody, SourceError};
use stream_router_engine::causes::with_sources;

/// A JSON answer with a line for each field, so that people can read it.
pub(crate) struct PrettyJson<T>(pub(crate) T);

/// A refusal: a code, and `{"error": "..."}`.
#[derive(Debug)]
pub(crate) struct HttpRefusal {
    code: StatusCode,
    error: String,
}

/// A request without a query.
pub(crate) struct NoQuery;

impl<T: Serialize> IntoResponse for PrettyJson<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string_pretty(&self.0) {
            Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
            Err(error) => {
                HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
        }
    }
}

impl HttpRefusal {
    pub(crate) fn new(code: StatusCode, error: String) -> Self {
        Self { code, error }
    }

    /// Returns the refusal of a wrong query.
    pub(crate) fn query(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping".to_owned())
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        (self.code, PrettyJson(ErrorBody { error: self.error })).into_response()
    }
}

impl From<JsonRejection> for HttpRefusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<SourceError> for HttpRefusal {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Query(wrong) => Self::query(wrong),
            SourceError::Busy(why) => Self::new(StatusCode::TOO_MANY_REQUESTS, why),
            SourceError::Failed(cause) => {
                warn!(
                    error = cause.as_ref() as &dyn std::error::Error,
                    "cannot answer a request"
                );
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, with_sources(cause.as_ref()))
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = HttpRefusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpRefusal> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(query) => Err(HttpRefusal::query(format!(
                "{} takes no parameters, and {query:?} was given",
                parts.uri.path()
            ))),
        }
    }
}
