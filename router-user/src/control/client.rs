//! Asks a running node.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ControlError, NumberBody, STATUS_PATH, STREAMS_PATH, Status, WORKERS_PATH};

/// More than 1,000 peers with 16 prefixes each need.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the node at `socket` for its status.
///
/// # Errors
/// Nobody answers within 5 s, or the answer is not a status.
pub async fn fetch_status(socket: &Path) -> Result<Status, ControlError> {
    let request = Request::get(STATUS_PATH).body(Full::default());
    let answer = ask(socket, request).await?;
    serde_json::from_slice(&answer).map_err(|error| bad_answer(socket, error))
}

/// Has the node at `socket` scale to `n` workers; returns once they are active.
///
/// # Errors
/// Nobody answers within 5 s, or the node refuses.
pub async fn set_workers(socket: &Path, n: u32) -> Result<(), ControlError> {
    set_number(socket, WORKERS_PATH, n).await
}

/// Has the node at `socket` scale to `n` streams to each peer.
///
/// # Errors
/// Nobody answers within 5 s, or the node refuses.
pub async fn set_streams(socket: &Path, n: u32) -> Result<(), ControlError> {
    set_number(socket, STREAMS_PATH, n).await
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
    let request = request.map_err(|error| bad_answer(socket, error))?;
    timeout(TIMEOUT, exchange(socket, request))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(ControlError::NoNode {
                path: socket.to_owned(),
                source: io::ErrorKind::TimedOut.into(),
            })
        })
}

async fn exchange(socket: &Path, mut request: Request<Full<Bytes>>) -> Result<Bytes, ControlError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ControlError::NoNode {
            path: socket.to_owned(),
            source,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| bad_answer(socket, error))?;
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("stream-router"));
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| bad_answer(socket, error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| bad_answer(socket, error))?.to_bytes();
        match status {
            _ if status.is_success() => Ok(body),
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::SERVICE_UNAVAILABLE => {
                Err(ControlError::Refused {
                    path: socket.to_owned(),
                    reason: String::from_utf8_lossy(&body).into_owned(),
                })
            }
            _ => Err(bad_answer(socket, status)),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // Once the connection has ended, what it carried is there or will never be.
        _ = connection => exchange.await,
    }
}

fn bad_answer(socket: &Path, reason: impl std::fmt::Display) -> ControlError {
    ControlError::BadAnswer {
        path: socket.to_owned(),
        reason: reason.to_string(),
    }
}
