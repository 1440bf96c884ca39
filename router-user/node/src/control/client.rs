//! Asks a running node.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ControlError, ErrorBody, NumberBody, Reload, ReloadProblems, Resource, StreamList, WorkerList};

/// Longest answer: more than 10,000 flows, or 1,000 peers with 16 prefixes each, need.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the node at `socket` for a resource; `query` is empty or the part of the URL behind the `?`.
///
/// # Errors
/// Nobody answers within 5 s, the node refuses, or its answer is not of this version.
pub async fn fetch<R: Resource>(socket: &Path, query: &str) -> Result<R, ControlError> {
    let answer = get(socket, R::PATH, query).await?;
    serde_json::from_slice(&answer).map_err(|error| bad_answer(socket, error))
}

/// Asks the node at `socket` for a resource, and returns the JSON as the node wrote it.
///
/// # Errors
/// Nobody answers within 5 s, the node refuses, or its answer is no text.
pub async fn fetch_text<R: Resource>(socket: &Path, query: &str) -> Result<String, ControlError> {
    let answer = get(socket, R::PATH, query).await?;
    String::from_utf8(answer.into()).map_err(|error| bad_answer(socket, error))
}

/// Asks the node at `socket` to scale to `n` workers; returns once they are active.
///
/// # Errors
/// Nobody answers within 5 s, or the node refuses.
pub async fn set_workers(socket: &Path, n: u32) -> Result<(), ControlError> {
    set_number(socket, WorkerList::PATH, n).await
}

/// Asks the node at `socket` to scale to `n` streams to each peer.
///
/// # Errors
/// Nobody answers within 5 s, or the node refuses.
pub async fn set_streams(socket: &Path, n: u32) -> Result<(), ControlError> {
    set_number(socket, StreamList::PATH, n).await
}

/// Asks the node at `socket` to read its configuration file again; returns the outcome and its JSON.
///
/// # Errors
/// Nobody answers within 5 s, the file is wrong, or the node cannot take what it says.
pub async fn reload(socket: &Path) -> Result<(Reload, String), ControlError> {
    let request = Request::post(Reload::PATH).body(Full::default());
    let (status, body) = send(socket, request).await?;
    if status == StatusCode::UNPROCESSABLE_ENTITY
        && let Ok(problems) = serde_json::from_slice::<ReloadProblems>(&body)
    {
        return Err(ControlError::BadConfiguration { problems });
    }
    let body = accepted(socket, status, body)?;
    let reload = serde_json::from_slice(&body).map_err(|error| bad_answer(socket, error))?;
    let text = String::from_utf8(body.into()).map_err(|error| bad_answer(socket, error))?;
    Ok((reload, text))
}

async fn get(socket: &Path, path: &str, query: &str) -> Result<Bytes, ControlError> {
    let request = if query.is_empty() {
        Request::get(path)
    } else {
        Request::get(format!("{path}?{query}"))
    };
    ask(socket, request.body(Full::default())).await
}

async fn set_number(socket: &Path, path: &str, n: u32) -> Result<(), ControlError> {
    let body = serde_json::to_vec(&NumberBody { active: n }).map_err(|error| bad_answer(socket, error))?;
    let request = Request::put(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body));
    ask(socket, request).await.map(drop)
}

async fn ask(
    socket: &Path,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<Bytes, ControlError> {
    let (status, body) = send(socket, request).await?;
    accepted(socket, status, body)
}

/// Returns the body of an answer, or the error that the answer reports.
fn accepted(socket: &Path, status: StatusCode, body: Bytes) -> Result<Bytes, ControlError> {
    if status.is_success() {
        return Ok(body);
    }
    Err(match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error: reason }) => ControlError::Refused {
            path: socket.to_owned(),
            reason,
        },
        Err(_no_answer_of_ours) => bad_answer(socket, status),
    })
}

async fn read(socket: &Path, body: Incoming) -> Result<Bytes, ControlError> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    Ok(body.map_err(|error| bad_answer(socket, error))?.to_bytes())
}

async fn send(
    socket: &Path,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<(StatusCode, Bytes), ControlError> {
    let request = request.map_err(|error| bad_answer(socket, error))?;
    within_limit(socket, exchange(socket, request)).await
}

/// Waits for an answer, for [`TIMEOUT`] at most.
pub(super) async fn within_limit<T>(
    socket: &Path,
    answer: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    timeout(TIMEOUT, answer).await.unwrap_or_else(|_elapsed| {
        Err(ControlError::NoNode {
            path: socket.to_owned(),
            source: io::ErrorKind::TimedOut.into(),
        })
    })
}

/// Connects to the node at `socket`.
pub(super) async fn connect(
    socket: &Path,
) -> Result<(Requests, impl Future<Output = Result<(), hyper::Error>> + use<>), ControlError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ControlError::NoPermission { path, source },
            _ => ControlError::NoNode { path, source },
        }
    })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| bad_answer(socket, error))?;
    Ok((Requests(sender), connection))
}

/// Sends requests on a connection.
pub(super) struct Requests(SendRequest<Full<Bytes>>);

impl Requests {
    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn send_request(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("stream-router"));
        self.0.send_request(request).await
    }
}

/// Returns the reason in a refusal.
pub(super) async fn refused(socket: &Path, status: StatusCode, body: Incoming) -> ControlError {
    let said = read(socket, body)
        .await
        .and_then(|body| accepted(socket, status, body));
    said.err().unwrap_or_else(|| bad_answer(socket, status))
}

async fn exchange(socket: &Path, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ControlError> {
    let (mut sender, connection) = connect(socket).await?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| bad_answer(socket, error))?;
        let status = response.status();
        Ok((status, read(socket, response.into_body()).await?))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // Once the connection has ended, what it carried is there or will never be.
        _ = connection => exchange.await,
    }
}

pub(super) fn bad_answer(socket: &Path, reason: impl std::fmt::Display) -> ControlError {
    ControlError::BadAnswer {
        path: socket.to_owned(),
        reason: reason.to_string(),
    }
}
