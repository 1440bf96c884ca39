//! `stream-router run`

use std::io::{IsTerminal, stderr};
use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::Outcome;
use crate::config::Config;
use crate::node;

/// Runs a node in the foreground.
pub(super) fn run(file: &Path) -> Outcome {
    let config = Config::load(file)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    Ok(node::run(&config)?)
}
