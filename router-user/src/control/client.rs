//! Asks a running node.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ControlError, STATUS_PATH, Status};

/// More than 1,000 peers with 16 prefixes each need.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the node at `socket` for its status.
///
/// # Errors
/// Nobody answers within 5 s, or the answer is not a status.
pub async fn fetch_status(socket: &Path) -> Result<Status, ControlError> {
    let answer = timeout(TIMEOUT, get(socket)).await.unwrap_or_else(|_elapsed| {
        Err(ControlError::NoNode {
            path: socket.to_owned(),
            source: io::ErrorKind::TimedOut.into(),
        })
    })?;
    serde_json::from_slice(&answer).map_err(|error| bad_answer(socket, error))
}

async fn get(socket: &Path) -> Result<Bytes, ControlError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ControlError::NoNode {
            path: socket.to_owned(),
            source,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| bad_answer(socket, error))?;
    let request = Request::get(STATUS_PATH)
        .header(HOST, "stream-router")
        .body(Empty::<Bytes>::new())
        .map_err(|error| bad_answer(socket, error))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| bad_answer(socket, error))?;
        if !response.status().is_success() {
            return Err(bad_answer(socket, response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        Ok(body.map_err(|error| bad_answer(socket, error))?.to_bytes())
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
