//! `stream-router run`

use super::outcome::Outcome;
use super::which::WhichFile;
use crate::config::Config;
use crate::logs::Logs;
use crate::node;

/// Runs a node in the foreground; with `make_key` it makes its key if there is none.
pub(super) fn run(which: &WhichFile, make_key: bool) -> Outcome {
    let file = &which.path()?;
    let config = Config::load(file)?;
    let logs = Logs::begin(config.log())?;
    let keypair = node::identity(&config, make_key)?;
    Ok(node::run(&config, keypair, file, &logs)?)
}
