//! Asks a running node, and prints the answer as lines or as JSON.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::outcome::{Outcome, print};
use crate::control::{ControlError, Resource, fetch, fetch_text};

/// Arguments of every command that asks a node.
#[derive(Debug, Args)]
pub(super) struct RequestArguments {
    /// Control socket of the node
    #[arg(long, value_name = "PATH", default_value = crate::config::DEFAULT_CONTROL_SOCKET)]
    pub(super) socket: PathBuf,
    /// Print JSON, as the node answers it
    #[arg(long)]
    pub(super) json: bool,
}

impl RequestArguments {
    /// Prints the resource of `query`, as the lines that `show` makes of it or as JSON.
    pub(super) fn show<R: Resource>(&self, query: &str, show: impl FnOnce(&R) -> String) -> Outcome {
        let text = wait(async {
            Ok(if self.json {
                fetch_text::<R>(&self.socket, query).await?
            } else {
                show(&fetch::<R>(&self.socket, query).await?)
            })
        })?;
        print(text.trim_end())
    }
}

/// Runs a request to its end.
pub(super) fn wait<T>(
    request: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(request)?)
}

/// Returns the text of a value, or `-` for none.
pub(super) fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
