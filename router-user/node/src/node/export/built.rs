//! For a program that sends.

use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::metrics::MetricsSources;
pub(in crate::node) use crate::otlp::Exporter;
use crate::otlp::{Identity, MAX_SPANS, load_headers, try_authorities};
use crate::spans::{Span, Spans};

/// What reading a file as a start does has said.
type Tried = Result<(), Box<dyn Error + Send + Sync>>;

/// The spans of a node from its start on.
#[derive(Debug)]
pub(in crate::node) struct Export {
    spans: Spans,
    ended: Option<mpsc::Receiver<Span>>,
    began: SystemTime,
}

impl Export {
    /// Collects spans if a configuration says where they are sent to.
    pub(in crate::node) fn of(config: &Config) -> Self {
        let channel = config.otlp().endpoint().map(|_| Spans::channel(MAX_SPANS));
        let (spans, ended) = channel.unzip();
        Self {
            spans: spans.unwrap_or_default(),
            ended,
            began: SystemTime::now(),
        }
    }

    /// Returns where spans are told.
    pub(in crate::node) fn spans(&self) -> Spans {
        self.spans.clone()
    }
}

/// Returns the file of the headers, and what reading it as a start does would say.
pub(in crate::node) fn headers(config: &Config) -> Option<(&Path, Tried)> {
    let path = config.otlp().endpoint().and(config.otlp().headers_file())?;
    Some((path, load_headers(path).map(drop).map_err(Into::into)))
}

/// Returns where the authorities are whose certificates count, and what a start would say to them.
pub(in crate::node) fn authorities(config: &Config) -> Option<(&Path, Tried)> {
    let path = config.otlp().ca_file().unwrap_or(Path::new("/etc/ssl/certs"));
    let endpoint = config.otlp().endpoint()?;
    let tried = || try_authorities(config.otlp()).map_err(Into::into);
    endpoint.is_encrypted().then(|| (path, tried()))
}

/// Begins to send, if the configuration says where to.
///
/// # Errors
/// The headers cannot be had, or the system gives no thread.
pub(in crate::node) fn start(
    config: &Config,
    sources: MetricsSources,
    export: Export,
) -> Result<Option<Exporter>, Box<dyn Error + Send + Sync>> {
    let Some(ended) = export.ended else {
        return Ok(None);
    };
    let status = sources.source.status();
    let identity = Identity {
        peer_id: &status.peer_id,
        name: status.name.as_deref(),
    };
    let read = Box::new(move || sources.open_metrics());
    Ok(Exporter::start(
        config.otlp(),
        &identity,
        export.began,
        read,
        (export.spans, ended),
    )?)
}
