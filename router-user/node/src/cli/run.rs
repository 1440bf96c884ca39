//! `stream-router run`

use std::path::Path;

use super::outcome::Outcome;
use crate::config::Config;
use crate::logs::Logs;
use crate::node;

/// Runs a node in the foreground; with `make_key` it makes its key if there is none.
pub(super) fn run(file: &Path, make_key: bool) -> Outcome {
    let config = Config::load(file)?;
    let logs = Logs::begin(config.log())?;
    let keypair = node::identity(&config, make_key)?;
    Ok(node::run(&config, keypair, file, &logs)?)
}
