//! For a program that sends nothing; a configuration that says where to is refused as it is read.

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;

use crate::config::Config;
use crate::metrics::MetricsSources;
use crate::spans::Spans;

/// What reading a file as a start does has said.
type Tried = Result<(), Box<dyn Error + Send + Sync>>;

/// There is none.
#[derive(Debug)]
pub(in crate::node) struct Exporter(Infallible);

/// Nothing.
#[derive(Debug)]
pub(in crate::node) struct Export;

impl Export {
    pub(in crate::node) fn of(_: &Config) -> Self {
        Self
    }

    /// Returns where spans are told, to nobody.
    #[expect(clippy::unused_self, reason = "as for a program that sends")]
    pub(in crate::node) fn spans(&self) -> Spans {
        Spans::default()
    }
}

/// Begins nothing.
#[expect(clippy::unnecessary_wraps, reason = "as for a program that sends")]
pub(in crate::node) fn start(
    _: &Config,
    _: MetricsSources,
    _: Export,
) -> Result<Option<Exporter>, Box<dyn Error + Send + Sync>> {
    Ok(None)
}

/// Returns no file of headers: nothing is sent.
pub(in crate::node) fn headers(_: &Config) -> Option<(&Path, Tried)> {
    None
}

/// Returns no authorities either.
pub(in crate::node) fn authorities(_: &Config) -> Option<(&Path, Tried)> {
    None
}
