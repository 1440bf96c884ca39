//! Serves the control socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::warn;

use super::{ControlError, NumberBody, STATUS_PATH, STREAMS_PATH, Status, WORKERS_PATH};

/// Where the answers come from.
pub trait StatusSource: Send + Sync + 'static {
    /// The state right now.
    fn status(&self) -> Status;
}

/// A wish for another number of workers, or of streams per peer.
#[derive(Debug)]
pub struct Wish {
    /// How many shall be active.
    pub n_active: u32,
    /// Told once they are, or why not.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Who fulfils wishes.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// For another number of workers.
    pub workers: mpsc::Sender<Wish>,
    /// For another number of streams to each peer.
    pub streams: mpsc::Sender<Wish>,
}

#[derive(Clone)]
struct Sources {
    status: Arc<dyn StatusSource>,
    wishes: Wishes,
}

/// A served control socket; dropping it ends the service and removes the file.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    server: AbortHandle,
}

impl ControlServer {
    /// Serves `status` at `path`, and passes on `wishes`; mode 0600, in place of what a killed node left there.
    ///
    /// # Errors
    /// A running node serves it, something else stands there, or the system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start(path: &Path, status: Arc<dyn StatusSource>, wishes: Wishes) -> Result<Self, ControlError> {
        let io = |action| {
            move |source| ControlError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(io("make the directory of"))?;
        }
        remove_stale(path)?;
        let listener = bind_private(path).map_err(io("listen on"))?;
        let app = Router::new()
            .route(STATUS_PATH, get(get_status))
            .route(WORKERS_PATH, put(put_workers))
            .route(STREAMS_PATH, put(put_streams))
            .with_state(Sources { status, wishes });
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                warn!(%error, "the control socket failed");
            }
        });
        Ok(Self {
            path: path.to_owned(),
            server: serving.abort_handle(),
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

async fn get_status(State(sources): State<Sources>) -> Json<Status> {
    Json(sources.status.status())
}

async fn put_workers(State(sources): State<Sources>, Json(body): Json<NumberBody>) -> Answer {
    fulfil(&sources.wishes.workers, body).await
}

async fn put_streams(State(sources): State<Sources>, Json(body): Json<NumberBody>) -> Answer {
    fulfil(&sources.wishes.streams, body).await
}

type Answer = Result<StatusCode, (StatusCode, String)>;

async fn fulfil(wishes: &mpsc::Sender<Wish>, body: NumberBody) -> Answer {
    let stopping = || (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping".to_owned());
    let (reply, answer) = oneshot::channel();
    let wish = Wish {
        n_active: body.active,
        reply,
    };
    wishes.send(wish).await.map_err(|_closed| stopping())?;
    match answer.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(reason)) => Err((StatusCode::UNPROCESSABLE_ENTITY, reason)),
        Err(_closed) => Err(stopping()),
    }
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let path_buf = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ControlError::Io {
                action: "look at",
                path: path_buf(),
                source,
            });
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse { path: path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ControlError::Io {
                action: "remove the stale socket",
                path: path_buf(),
                source,
            })
        }
        Err(source) => Err(ControlError::Io {
            action: "look who serves",
            path: path_buf(),
            source,
        }),
    }
}

/// Binds next to `path` and moves the socket there once it is private, so that nobody can connect in between.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&fresh, path))
        .inspect_err(|_| {
            // The first error is the one to report.
            let _ = fs::remove_file(&fresh);
        })?;
    Ok(listener)
}
