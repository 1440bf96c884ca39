//! Sends a message to a collector by HTTP/1.1, a connection each. Whoever calls bounds the time.

use std::io;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::headers::HeadersError;
use super::message::Response;
use super::tls::Tls;
use crate::config::OtlpEndpoint;

/// Most bytes of an answer's head, and most headers in it; hyper allows no smaller head.
const MAX_HEAD_BYTES: usize = 8192;
const MAX_HEADERS: usize = 64;

/// Most bytes of an answer's body, which is a text for the log at most.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

const CONTENT_TYPE: &str = "application/x-protobuf";

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Headers(#[from] HeadersError),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("it does not show that it is the one that is meant, or speaks no TLS")]
    Tls(#[source] io::Error),
    #[error("it speaks no HTTP/1.1 as collectors do")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written")]
    Request(#[from] axum::http::Error),
    #[error("its answer cannot be read")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answers {0}")]
    Refused(StatusCode),
    #[error("it does not answer in time")]
    Late,
}

impl SendError {
    /// Returns whether the same again would fail again.
    pub(super) fn is_final(&self) -> bool {
        // By the specification these may pass, and no others.
        let passing = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        matches!(self, Self::Refused(status) if !passing.contains(status))
    }
}

/// Sends a message to `/v1/KIND` of a collector, and returns its answer.
///
/// # Errors
/// It cannot be reached, refuses, or answers what is no answer.
pub(super) async fn send(
    (endpoint, tls): (&OtlpEndpoint, Option<&Tls>),
    kind: &str,
    headers: HeaderMap,
    message: &impl Message,
) -> Result<Response, SendError> {
    let stream = TcpStream::connect((endpoint.host(), endpoint.port()));
    let stream = stream.await.map_err(SendError::Connect)?;
    stream.set_nodelay(true).map_err(SendError::Connect)?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/v1/{kind}", endpoint.path()))
        .body(Full::<Bytes>::from(message.encode_to_vec()))?;
    let host = HeaderValue::try_from(endpoint.authority()).map_err(axum::http::Error::from)?;
    *request.headers_mut() = headers;
    for (name, value) in [
        (header::HOST, host),
        (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE)),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ] {
        request.headers_mut().insert(name, value);
    }
    match tls {
        None => exchange(stream, request).await,
        Some(tls) => {
            let stream = tls.connect(stream).await.map_err(SendError::Tls)?;
            exchange(stream, request).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response, SendError> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(SendError::Refused(status));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        let body = body.await.map_err(SendError::Answer)?.to_bytes();
        Response::decode(body).map_err(|error| SendError::Answer(error.into()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        // It may end just as the answer is complete.
        _ = &mut connection => answer.await,
    }
}
