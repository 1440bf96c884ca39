//! The log of a running node: where it goes, how it looks, and what of it repeats too often.

mod journal;
mod json;
mod names;
mod repeats;
#[cfg(test)]
mod test_lines;

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::{env, fmt};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Config, LogFormat, LogSection};
use journal::JournalFormat;
use json::{JsonFields, JsonFormat};
use names::{NamedFields, PeerNames};
#[cfg(test)]
pub(crate) use repeats::ANSWERS;
use repeats::Repeats;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The variable `RUST_LOG` is set, and is no filter.
    #[error(
        "{}={text} is no log filter: {reason}; such as \"info\" or \"stream_router=debug\"",
        EnvFilter::DEFAULT_ENV
    )]
    Variable { text: String, reason: String },
    /// The process has a log already.
    #[error("cannot begin to log: {0}")]
    Begun(String),
}

/// The log of this process.
pub(crate) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    repeats: Arc<Repeats>,
    names: PeerNames,
    /// Whether the environment says what is logged, which goes before the configuration.
    overridden: bool,
}

impl Logs {
    /// Logs to standard error from now on.
    ///
    /// # Errors
    /// `RUST_LOG` is wrong, or something else logs in this process.
    pub(crate) fn begin(config: &LogSection) -> Result<Self, LogError> {
        let variable = variable()?;
        let overridden = variable.is_some();
        let (filter, handle) = reload::Layer::new(variable.unwrap_or_else(|| config.filter()));
        let repeats = Arc::new(Repeats::default());
        let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
        let names = PeerNames::default();
        let named = NamedFields(names.clone());
        let lines = match shown(config.format()) {
            LogFormat::Json => lines
                .fmt_fields(JsonFields(names.clone()))
                .event_format(JsonFormat(names.clone()))
                .boxed(),
            LogFormat::Journald => lines
                .with_ansi(false)
                .fmt_fields(named)
                .event_format(JournalFormat::default())
                .boxed(),
            LogFormat::Human | LogFormat::Auto => {
                lines.with_ansi(stderr().is_terminal()).fmt_fields(named).boxed()
            }
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(repeats::Layer(repeats.clone()))
            .try_init()
            .map_err(|error| LogError::Begun(error.to_string()))?;
        Ok(Self {
            filter: handle,
            repeats,
            names,
            overridden,
        })
    }

    /// Calls peers by the names that these configurations give them, from now on.
    pub(crate) fn name_peers(&self, configs: &[&Config]) {
        self.names.learn(configs);
    }

    /// Sets the level of `config` from now on; returns why it has no effect, if it has none.
    pub(crate) fn set_level(&self, config: &LogSection) -> Result<(), String> {
        if self.overridden {
            return Err(format!("{} says what is logged", EnvFilter::DEFAULT_ENV));
        }
        self.filter
            .reload(config.filter())
            .map_err(|error| error.to_string())
    }

    /// Logs from time to time how many repeats were left out; does not return.
    pub(crate) async fn report_repeats(&self) {
        self.repeats.report().await;
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("overridden", &self.overridden)
            .finish_non_exhaustive()
    }
}

fn variable() -> Result<Option<EnvFilter>, LogError> {
    let wrong = |text: String, reason: String| LogError::Variable { text, reason };
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => Ok(Some(filter)),
            Err(error) => Err(wrong(text, error.to_string())),
        },
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(text)) => Err(wrong(
            text.to_string_lossy().into_owned(),
            "it is no text".to_owned(),
        )),
    }
}

/// Returns the format that [`LogFormat::Auto`] stands for here.
fn shown(format: LogFormat) -> LogFormat {
    match format {
        LogFormat::Auto if journal::is_journal(&stderr()) => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Human,
        format => format,
    }
}
