//! Sends metrics and spans to a collector of OpenTelemetry: OTLP over HTTP, in the binary form.
//!
//! All of it is on a thread of its own. What a collector can cost is bounded: [`MAX_SPANS`] spans wait, an export takes
//! [`SEND_LIMIT`] at most, and the last one, as the node stops, [`FLUSH_LIMIT`].

mod families;
mod headers;
mod message;
mod send;
mod tls;

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span as LogSpan, debug, info, warn};

use crate::config::OtlpSection;
use crate::spans::{Span, Spans};
use families::{NoOpenMetrics, Times};
pub(crate) use headers::HeadersError;
pub(crate) use headers::load as load_headers;
use message::{
    INTERNAL, KeyValue, Metric, MetricsRequest, Resource, ResourceMetrics, ResourceSpans, Response,
    STATUS_ERROR, Scope, ScopeMetrics, ScopeSpans, SpansRequest, Status,
};
use send::{SendError, send};
use tls::Tls;
pub(crate) use tls::TlsError;

/// Spans that wait to be sent; what comes beyond is counted.
pub(crate) const MAX_SPANS: usize = 1024;

/// Points in a request: about a megabyte, of which collectors take several.
const MAX_POINTS: usize = 4096;

/// How long an export may take.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long a node that stops waits for its last export.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Name of the thread.
const THREAD: &str = "sr-otlp";

const SERVICE: &str = "stream-router";

/// Returns the metrics in the text of OpenMetrics.
pub(crate) type ReadMetrics = Box<dyn Fn() -> Result<String, Box<dyn std::error::Error>> + Send>;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// The headers cannot be had.
    #[error("nothing can be sent with otlp.headers_file")]
    Headers(#[from] HeadersError),
    /// The collector cannot be spoken to in secret.
    #[error("nothing can be sent to otlp.endpoint over https")]
    Tls(#[from] TlsError),
    /// The system gives no thread.
    #[error("cannot start the thread that sends metrics")]
    Thread(#[source] io::Error),
}

/// Tries whether there are authorities for a collector over https, as a start does.
///
/// # Errors
/// There are none.
pub(crate) fn try_authorities(section: &OtlpSection) -> Result<(), TlsError> {
    Tls::of(section).map(drop)
}

/// Who sends, and as which node.
pub(crate) struct Identity<'a> {
    pub(crate) peer_id: &'a str,
    pub(crate) name: Option<&'a str>,
}

/// A thread that sends, which makes a last export as it is dropped.
#[derive(Debug)]
pub(crate) struct Exporter {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Sends what `read` returns and what comes out of `ended`, the end of `spans`.
    ///
    /// # Errors
    /// The headers cannot be had, or the system gives no thread.
    pub(crate) fn start(
        section: &OtlpSection,
        identity: &Identity<'_>,
        began: SystemTime,
        read: ReadMetrics,
        (spans, ended): (Spans, mpsc::Receiver<Span>),
    ) -> Result<Option<Self>, OtlpError> {
        let Some(endpoint) = section.endpoint() else {
            return Ok(None);
        };
        if let Some(file) = section.headers_file() {
            load_headers(file)?;
        }
        let tls = Tls::of(section)?;
        info!(
            endpoint = endpoint.authority(),
            encrypted = tls.is_some(),
            "metrics and spans are sent to a collector"
        );
        let outlet = Outlet {
            resource: resource(section, identity),
            section: section.clone(),
            tls,
            start_ns: nanoseconds(began),
            read,
            spans,
            ended,
            waiting: Vec::new(),
            is_failing: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(OtlpError::Thread)?;
        let stop = CancellationToken::new();
        let (stopped, span) = (stop.clone(), LogSpan::current());
        let run = move || {
            let _span = span.entered();
            runtime.block_on(outlet.run(stopped));
            // A resolver that hangs is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        Ok(Some(Self {
            stop,
            thread: Some(thread.map_err(OtlpError::Thread)?),
        }))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic on it has been printed already.
            let _ = thread.join();
        }
    }
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the metrics cannot be read")]
    Read(#[source] Box<dyn std::error::Error>),
    #[error("the metrics are not understood")]
    Text(#[from] NoOpenMetrics),
    #[error("the collector cannot be sent to")]
    Send(#[from] SendError),
}

struct Outlet {
    section: OtlpSection,
    tls: Option<Tls>,
    resource: Resource,
    start_ns: u64,
    read: ReadMetrics,
    spans: Spans,
    ended: mpsc::Receiver<Span>,
    /// Spans that could not be sent yet.
    waiting: Vec<message::Span>,
    is_failing: bool,
}

impl Outlet {
    async fn run(mut self, stop: CancellationToken) {
        let interval = self.section.interval();
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.export(SEND_LIMIT) => {}
            }
        }
        self.export(FLUSH_LIMIT).await;
    }

    /// Sends everything, for as long as `limit`; that a collector is gone is logged once.
    async fn export(&mut self, limit: Duration) {
        let lost = self.spans.take_lost();
        if lost > 0 {
            warn!(
                lost,
                MAX_SPANS, "more spans ended than can wait for their collector"
            );
        }
        let sent = timeout(limit, async {
            let metrics = self.send_metrics().await;
            metrics.and(self.send_spans().await)
        });
        let sent = sent.await.unwrap_or(Err(SendError::Late.into()));
        match &sent {
            Ok(()) if self.is_failing => info!("metrics and spans are sent again"),
            Ok(()) => {}
            Err(error) if self.is_failing => {
                debug!(
                    error = error as &dyn std::error::Error,
                    "metrics and spans are still not sent"
                );
            }
            Err(error) => warn!(
                error = error as &dyn std::error::Error,
                "metrics and spans are not sent; trying on"
            ),
        }
        self.is_failing = sent.is_err();
    }

    async fn send_metrics(&self) -> Result<(), ExportError> {
        let text = (self.read)().map_err(ExportError::Read)?;
        let times = Times {
            start_ns: self.start_ns,
            now_ns: nanoseconds(SystemTime::now()),
        };
        for metrics in portions(families::metrics(&text, times)?) {
            let request = MetricsRequest {
                resource_metrics: vec![ResourceMetrics {
                    resource: Some(self.resource.clone()),
                    scope_metrics: vec![ScopeMetrics {
                        scope: Some(scope()),
                        metrics,
                    }],
                }],
            };
            self.send("metrics", &request).await?;
        }
        Ok(())
    }

    async fn send_spans(&mut self) -> Result<(), ExportError> {
        while self.waiting.len() < MAX_SPANS
            && let Ok(span) = self.ended.try_recv()
        {
            self.waiting.push(span_message(span));
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let request = SpansRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans: self.waiting.clone(),
                }],
            }],
        };
        let sent = self.send("traces", &request).await;
        if sent.as_ref().err().is_none_or(SendError::is_final) {
            self.waiting.clear();
        }
        Ok(sent?)
    }

    async fn send(&self, kind: &str, request: &impl prost::Message) -> Result<(), SendError> {
        let Some(endpoint) = self.section.endpoint() else {
            return Ok(());
        };
        // Read each time, as a token may be replaced by another.
        let headers = self.section.headers_file().map(load_headers).transpose()?;
        let way = (endpoint, self.tls.as_ref());
        let Response { partial_success } = send(way, kind, headers.unwrap_or_default(), request).await?;
        if let Some(partial) = partial_success.filter(|partial| partial.n_rejected > 0) {
            warn!(kind, n_rejected = partial.n_rejected, why = ?partial.error, "the collector rejects some of what it is sent");
        }
        Ok(())
    }
}

/// Divides metrics into what goes with one request each.
fn portions(metrics: Vec<Metric>) -> Vec<Vec<Metric>> {
    let mut portions = vec![Vec::new()];
    let mut n_free = MAX_POINTS;
    for mut metric in metrics {
        while metric.n_points() > n_free {
            let rest = metric.split_off(n_free);
            if n_free > 0 {
                portions.last_mut().expect("it begins with one").push(metric);
            }
            portions.push(Vec::new());
            (metric, n_free) = (rest, MAX_POINTS);
        }
        n_free -= metric.n_points();
        portions.last_mut().expect("it begins with one").push(metric);
    }
    portions
}

fn span_message(span: Span) -> message::Span {
    let mut random = rand::rng();
    // Zero stands for none.
    let trace_id: u128 = random.random_range(1..=u128::MAX);
    let span_id: u64 = random.random_range(1..=u64::MAX);
    let start_ns = nanoseconds(span.began);
    let attributes = span.attributes.into_iter();
    message::Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: span_id.to_be_bytes().to_vec(),
        name: span.name.to_owned(),
        kind: INTERNAL,
        start_ns,
        end_ns: start_ns.saturating_add(span.took.as_nanos().try_into().unwrap_or(u64::MAX)),
        attributes: attributes
            .map(|(key, value)| KeyValue::text(key, value))
            .collect(),
        status: span.error.map(|message| Status {
            message,
            code: STATUS_ERROR,
        }),
    }
}

fn resource(section: &OtlpSection, identity: &Identity<'_>) -> Resource {
    let own = [
        ("service.instance.id", Some(identity.peer_id)),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("stream_router.node.name", identity.name),
    ];
    let own = own
        .into_iter()
        .filter_map(|(key, value)| Some(KeyValue::text(key, value?)));
    let said = section.attributes().iter();
    let is_named = section.attributes().iter().any(|(key, _)| key == "service.name");
    let service = (!is_named).then(|| KeyValue::text("service.name", SERVICE));
    let process = KeyValue::integer("process.pid", std::process::id().into());
    Resource {
        attributes: service
            .into_iter()
            .chain(own)
            .chain([process])
            .chain(said.map(|(key, value)| KeyValue::text(key, value)))
            .collect(),
    }
}

fn scope() -> Scope {
    Scope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    // A clock before 1970 is wrong in any case.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
