//! Serves the control socket.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use axum::{Json, Router};
use futures::StreamExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::warn;

use super::kernel_reads::KernelReads;
use super::reload::{PEER_PATH, change_routes};
use super::reply::{HttpRefusal, NoQuery, PrettyJson};
use super::resource_routes::resource_routes;
use super::{
    CAPTURE_CONTENT_TYPE, CAPTURE_PATH, CaptureQuery, ControlError, ControlRequests, CounterList, EventList,
    FlowList, InviteStatus, NumberBody, PeerList, Reload, Resource, RouteList, ScaleRequest, Source, Status,
    StreamList, WorkerList,
};

/// Most bytes in the body of a request; a new peer by an invite has up to 2400.
pub(crate) const MAX_BODY_BYTES: usize = 4096;

#[derive(Clone)]
struct ServerState {
    source: Arc<dyn Source>,
    requests: ControlRequests,
    reads: KernelReads,
}

/// A served control socket; dropping it ends the service and removes the file.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    server: AbortHandle,
}

impl ControlServer {
    /// Serves `source` at `path` with mode 0600, and passes on `requests`. A socket that a killed node left there is
    /// replaced.
    ///
    /// # Errors
    /// A running node serves the path, something other than a socket is there, or the system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start(
        path: &Path,
        source: Arc<dyn Source>,
        requests: ControlRequests,
    ) -> Result<Self, ControlError> {
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
        let server = ServerState {
            reads: KernelReads::new(source.clone()),
            source,
            requests,
        };
        let app = app(server);
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

fn app(server: ServerState) -> Router {
    Router::new()
        .merge(resource_routes(server.source.clone()))
        .route(WorkerList::PATH, put(put_workers))
        .route(StreamList::PATH, put(put_streams))
        .route(FlowList::PATH, server.reads.clone().flows())
        .route(RouteList::PATH, get(get_routes))
        .merge(change_routes(server.requests.reload.clone()))
        .route(CAPTURE_PATH, get(get_capture))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(server)
}

async fn get_routes(
    State(server): State<ServerState>,
    _: NoQuery,
) -> Result<PrettyJson<RouteList>, HttpRefusal> {
    server.reads.read(|source| source.routes()).await
}

async fn get_capture(
    State(server): State<ServerState>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, HttpRefusal> {
    let query = CaptureQuery::parse(query.as_deref().unwrap_or_default()).map_err(HttpRefusal::query)?;
    let records = server.source.capture(&query)?;
    let body = Body::from_stream(records.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, CAPTURE_CONTENT_TYPE)], body))
}

async fn put_workers(
    State(server): State<ServerState>,
    _: NoQuery,
    body: Result<Json<NumberBody>, JsonRejection>,
) -> Result<StatusCode, HttpRefusal> {
    forward(&server.requests.workers, body?.0).await
}

async fn put_streams(
    State(server): State<ServerState>,
    _: NoQuery,
    body: Result<Json<NumberBody>, JsonRejection>,
) -> Result<StatusCode, HttpRefusal> {
    forward(&server.requests.streams, body?.0).await
}

async fn unknown_path(uri: Uri) -> HttpRefusal {
    let paths = [
        Status::PATH,
        PeerList::PATH,
        FlowList::PATH,
        WorkerList::PATH,
        StreamList::PATH,
        CounterList::PATH,
        EventList::PATH,
        InviteStatus::PATH,
        RouteList::PATH,
        Reload::PATH,
        PEER_PATH,
        CAPTURE_PATH,
    ];
    let error = format!("there is no {}; there are {}", uri.path(), paths.join(", "));
    HttpRefusal::new(StatusCode::NOT_FOUND, error)
}

async fn unknown_method(method: Method, uri: Uri) -> HttpRefusal {
    let error = format!(
        "{} takes no {method}; the header Allow says what it takes",
        uri.path()
    );
    HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

async fn forward(requests: &mpsc::Sender<ScaleRequest>, body: NumberBody) -> Result<StatusCode, HttpRefusal> {
    let (reply, answer) = oneshot::channel();
    let request = ScaleRequest {
        n_active: body.active,
        reply,
    };
    requests
        .send(request)
        .await
        .map_err(|_closed| HttpRefusal::stopping())?;
    match answer.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(reason)) => Err(HttpRefusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
        Err(_closed) => Err(HttpRefusal::stopping()),
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
