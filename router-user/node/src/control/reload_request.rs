//! What the node is asked to do when its configuration file is to be read again.

use tokio::sync::oneshot;

use super::{Reload, ReloadProblems};

/// A request to read the configuration file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Gets the outcome of the reload.
    pub reply: oneshot::Sender<Result<Reload, ReloadRefusal>>,
}

/// Why the configuration file was not taken. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadRefusal {
    /// The file is wrong, or cannot be read.
    File(ReloadProblems),
    /// The node cannot take what the file says.
    Failed(String),
}
