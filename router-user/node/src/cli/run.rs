//! `stream-router run`

use std::path::Path;

use super::outcome::Outcome;
use crate::config::Config;
use crate::logs::Logs;
use crate::node;

/// Runs a node in the foreground.
pub(super) fn run(file: &Path) -> Outcome {
    let config = Config::load(file)?;
    let logs = Logs::begin(config.log())?;
    Ok(node::run(&config, file, &logs)?)
}
