//! The `[log]` section.

use tracing_subscriber::EnvFilter;

use super::problem::{Located, Problems};
use super::reader::Table;

const DEFAULT_LEVEL: &str = "info";

/// INFO of the swarm and of mDNS repeats ours, and reports every stranger on the local network. The DHT warns that it
/// knows nobody yet when it starts.
const QUIET_TARGETS: &str = "libp2p_swarm=warn,libp2p_mdns=warn,libp2p_kad=error";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const LEVEL_ALLOWED: &str = "off, error, warn, info, debug or trace, and TARGET=LEVEL for parts, such as \
                             \"info,stream_router::p2p=debug\"";
const FORMAT_ALLOWED: &str = "\"auto\", \"human\", \"json\" or \"journald\"";

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSection {
    level: String,
    format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The form of the journal where standard error is the journal, else the form for people.
    #[default]
    Auto,
    /// Time, level, text and values, for people.
    Human,
    /// One JSON object.
    Json,
    /// No time, which the journal has, and the level as the journal reads it.
    Journald,
}

impl LogSection {
    /// Returns the directives as they stand in the file.
    pub fn level(&self) -> &str {
        &self.level
    }

    /// Returns how a line looks.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Returns the filter that the directives make.
    pub fn filter(&self) -> EnvFilter {
        // Of two directives for one target the later counts.
        EnvFilter::new(format!("{QUIET_TARGETS},{}", self.level))
    }

    /// Returns `self` with the level of `new`.
    pub(super) fn with_level_of(&self, new: &Self) -> Self {
        Self {
            level: new.level.clone(),
            ..*self
        }
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let level = table.string("level", LEVEL_ALLOWED, problems);
        if let Some(Located { place, value }) = &level
            && let Err(wrong) = check_level(value)
        {
            problems.add(place, wrong, LEVEL_ALLOWED);
        }
        let format = format(&mut table, problems);
        table.finish(problems);
        Self {
            level: level.map_or_else(|| DEFAULT_LEVEL.to_owned(), |found| found.value),
            format,
        }
    }
}

/// Refuses a word alone that is no level. To the filter it would be a target, and nothing else would be logged.
fn check_level(text: &str) -> Result<(), String> {
    for directive in text.split(',').map(str::trim) {
        let is_level = LEVELS.contains(&directive.to_ascii_lowercase().as_str());
        if !directive.contains(['=', '[']) && !is_level {
            return Err(format!("{directive:?} is no level"));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{text:?} is no log filter: {error}")),
    }
}

fn format(table: &mut Table<'_>, problems: &mut Problems) -> LogFormat {
    let values = [
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
    let format = table.choice("format", &values, ("is no format", FORMAT_ALLOWED), problems);
    format.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn log(section: &str) -> Result<LogSection, String> {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n[log]\n{section}\n");
        match Config::parse(&text, Path::new("sr.toml")) {
            Ok(config) => Ok(config.log().clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let log = log("").unwrap();
        assert_eq!((log.level(), log.format()), ("info", LogFormat::Auto));
        assert_eq!(log.filter().to_string(), format!("{QUIET_TARGETS},info"));
    }

    #[test]
    fn levels_of_parts_are_read_and_the_swarm_is_quiet_unless_it_is_named() {
        let filter = |level: &str| log(&format!("level = '{level}'")).unwrap().filter().to_string();

        assert_eq!(
            filter("warn,stream_router::p2p=debug"),
            format!("stream_router::p2p=debug,{QUIET_TARGETS},warn")
        );
        assert_eq!(
            filter("info,libp2p_swarm=trace"),
            "libp2p_swarm=trace,libp2p_mdns=warn,libp2p_kad=error,info"
        );
        assert_eq!(filter("OFF"), format!("{QUIET_TARGETS},off"));
    }

    #[test]
    fn what_is_no_level_is_reported_with_its_line() {
        for level in [
            "loud",
            "",
            "info,",
            "info,stream_router",
            "inof,p2p=debug",
            "stream_router=loud",
            "a=b=c",
        ] {
            let problem = log(&format!("level = '{level}'")).unwrap_err();
            assert!(
                problem.starts_with("sr.toml:4: log.level: "),
                "{level:?}: {problem}"
            );
        }
    }

    #[test]
    fn a_format_is_one_of_four() {
        for (name, format) in [
            ("auto", LogFormat::Auto),
            ("human", LogFormat::Human),
            ("json", LogFormat::Json),
            ("journald", LogFormat::Journald),
        ] {
            assert_eq!(log(&format!("format = '{name}'")).unwrap().format(), format);
        }
        assert_eq!(
            log("format = 'xml'").unwrap_err(),
            "sr.toml:4: log.format: \"xml\" is no format (allowed: \"auto\", \"human\", \"json\" or \"journald\")"
        );
    }
}
