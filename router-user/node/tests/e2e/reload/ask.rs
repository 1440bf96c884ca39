//! Makes a node read its configuration again, and looks at what came of it.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::LIMIT;
use crate::support::NODE;
use xtask::lab::process::{output, text, until};
use xtask::lab::{Node, NodeConfig};

/// Runs the command.
pub(crate) fn reload(node: &Node, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(NODE);
    command.args(["reload", "--socket"]).arg(node.socket()).args(more);
    output(&mut command, LIMIT)
}

/// Writes the file, has the node read it, and returns what it answers.
pub(crate) fn reload_with(node: &Node, config: &NodeConfig) -> Result<Value> {
    node.configure(config)?;
    let output = reload(node, &["--json"])?;
    ensure!(
        output.status.success(),
        "reload: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Sends SIGHUP.
pub(crate) fn hang_up(node: &Node) -> Result<()> {
    let id = node.process_id().context("the node runs")?;
    Ok(kill(Pid::from_raw(id as i32), Signal::SIGHUP)?)
}

/// Waits until the log of a node has a text behind its first `from` bytes.
pub(crate) fn wait_logged(node: &Node, from: usize, wanted: &str) -> Result<()> {
    let looked = until(&format!("{wanted:?} in the log"), LIMIT, || {
        Ok(node.log()?[from..].contains(wanted).then_some(()))
    });
    looked.map(drop).with_context(|| node.log().unwrap_or_default())
}

/// The kernel's prefix table, as text.
pub(crate) fn prefix_table(node: &Node) -> Result<String> {
    let mut command = Command::new(NODE);
    text(
        command.args(["routes", "--json", "--socket"]).arg(node.socket()),
        LIMIT,
    )
}
