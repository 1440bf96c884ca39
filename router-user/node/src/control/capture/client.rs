//! Reads a capture of a running node.

use std::path::{Path, PathBuf};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use tokio_util::task::AbortOnDropHandle;

use super::{CAPTURE_PATH, CaptureQuery};
use crate::control::ControlError;
use crate::control::client::{bad_answer, connect, refused, within_limit};

/// A running capture; dropping it ends it.
#[derive(Debug)]
pub struct CaptureReader {
    socket: PathBuf,
    body: Incoming,
    _connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl CaptureReader {
    /// Asks the node at `socket` for a capture; it captures once this returns.
    ///
    /// # Errors
    /// Nobody answers within 5 s, or the node refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn open(socket: &Path, query: &CaptureQuery) -> Result<Self, ControlError> {
        let request = Request::get(format!("{CAPTURE_PATH}?{}", query.query()))
            .body(Full::<Bytes>::default())
            .map_err(|error| bad_answer(socket, error))?;
        within_limit(socket, async {
            let (mut sender, connection) = connect(socket).await?;
            let connection = AbortOnDropHandle::new(tokio::spawn(connection));
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| bad_answer(socket, error))?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(refused(socket, head.status, body).await);
            }
            Ok(Self {
                socket: socket.to_owned(),
                body,
                _connection: connection,
            })
        })
        .await
    }

    /// Returns the next bytes of the pcapng; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, ControlError> {
        loop {
            return match self.body.frame().await {
                None => Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Err(bad_answer(&self.socket, error)),
            };
        }
    }
}
