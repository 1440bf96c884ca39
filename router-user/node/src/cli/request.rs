//! Asks a running node, and prints the answer as lines or as JSON.

use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, stdout};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;

use super::outcome::{Outcome, print};
use super::which::WhichNode;
use crate::control::{ControlError, Resource, fetch, fetch_text};

/// Clears a terminal, and goes on at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Arguments of every command that asks a node.
#[derive(Debug, Args)]
pub(super) struct RequestArguments {
    #[command(flatten)]
    pub(super) which: WhichNode,
    /// Print JSON, as the node answers it
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of every command that shows a state of a node.
#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    pub(super) request: RequestArguments,
    /// Show it again and again until Ctrl-C, every 2 seconds or as said
    #[arg(
        long,
        value_name = "SECS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = parse_interval,
        conflicts_with = "json"
    )]
    watch: Option<Duration>,
}

impl ShowArguments {
    /// Prints the resource of `query`, as the lines that `show` makes of it or as JSON.
    pub(super) fn show<R: Resource>(&self, query: &str, show: impl Fn(&R) -> String) -> Outcome {
        let socket = &self.request.which.socket()?;
        if self.request.json {
            return print(wait(fetch_text::<R>(socket, query))?.trim_end());
        }
        self.repeat(|| Ok(show(&wait(fetch::<R>(socket, query))?)))
    }

    /// Prints what `text` returns, again and again if that was asked for. Once there was something to show, a node that
    /// does not answer is waited for.
    pub(super) fn repeat(&self, text: impl Fn() -> Result<String, Box<dyn Error>>) -> Outcome {
        let mut now = text()?;
        let Some(interval) = self.watch else {
            return print(now.trim_end());
        };
        let clear = if stdout().is_terminal() { CLEAR } else { "" };
        loop {
            print(format_args!("{clear}{}", now.trim_end()))?;
            sleep(interval);
            now = text().unwrap_or_else(|error| format!("{error}; asking again"));
        }
    }
}

/// Reads the time between two requests.
///
/// # Errors
/// The text is wrong; the error says what is allowed.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .filter(|seconds| (0.5..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds from 0.5 to 3600".to_owned())
}

/// Runs a request to its end.
pub(super) fn wait<T>(request: impl Future<Output = Result<T, ControlError>>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(request)?)
}

/// Returns the text of a value, or `-` for none.
pub(super) fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
