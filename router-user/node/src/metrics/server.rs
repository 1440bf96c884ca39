//! Serves HTTP on a thread of its own, so that a client that asks much or slowly costs the node nothing but CPU time.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info, warn};

use super::history::{INTERVAL, Recorder};
use super::routes::app;
use super::{MetricsError, MetricsSources};
use crate::control::Source;

/// Connections served at a time; more wait in the listener's backlog.
pub(super) const MAX_CONNECTIONS: usize = 32;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be used. It ends after the request that is under way; clients then open another.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// How long the last request of a connection may take; a client that does not read its answer would never end it.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes in the head of a request; hyper allows no smaller limit.
const MAX_HEAD_BYTES: usize = 8192;

/// Most headers in a request; browsers send about 20.
const MAX_HEADERS: usize = 64;

/// Pause after a failure to accept, which means that descriptors are short and would only repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Name of the thread.
const THREAD: &str = "sr-metrics";

/// A running server, which serves until it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Serves at `address`, to requests addressed to an IP address, `localhost` or one of `hosts`.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system gives no thread.
    pub fn start(
        address: SocketAddr,
        hosts: &[String],
        sources: MetricsSources,
    ) -> Result<Self, MetricsError> {
        let listen = |source| MetricsError::Listen { address, source };
        let listener = StdListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let history = Arc::new(Recorder::default());
        let recording = record(sources.source.clone(), history.clone());
        let app = app(sources, history, hosts.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(MetricsError::Thread)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let span = Span::current();
        let serve = move || {
            let _span = span.entered();
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = serve(listener, app) => {}
                    () = recording => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(serve);
        if address.ip().is_loopback() {
            info!(url = %format_args!("http://{address}/"), "metrics and the status page are served");
        } else {
            warn!(
                url = %format_args!("http://{address}/"),
                "metrics and the status page are served without a password to whoever reaches this address; \
                 a firewall or a loopback address in metrics.listen keeps others out"
            );
        }
        Ok(Self {
            address,
            stop,
            thread: Some(thread.map_err(MetricsError::Thread)?),
        })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic on it has been printed already.
            let _ = thread.join();
        }
    }
}

async fn record(source: Arc<dyn Source>, history: Arc<Recorder>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        history.record(source.as_ref());
    }
}

async fn serve(listener: StdListener, app: Router) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "metrics are not served"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let app = app.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_one(stream, app).await {
                        debug!(%peer, error, "a metrics connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a metrics connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, app: Router) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    match timeout(LAST_REQUEST_TIMEOUT, connection).await {
        Ok(ended) => Ok(ended?),
        Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
