//! What the node is asked to do when its configuration file is to be read again, or changed first.

use tokio::sync::oneshot;

use super::{PeerChange, Reload, ReloadProblems};

/// A request to read the configuration file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What is to be changed in the configuration before that.
    pub change: Option<PeerChange>,
    /// Gets the outcome of the reload.
    pub reply: oneshot::Sender<Result<Reload, ReloadRefusal>>,
}

/// Why the configuration file was not changed, or not taken. Nothing else has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadRefusal {
    /// The file is wrong, or cannot be read.
    File(ReloadProblems),
    /// The node cannot take what the file says. A change of it was made.
    Failed(String),
    /// The change of the file makes no sense.
    Senseless(String),
    /// There is no such peer to change.
    NoPeer(String),
    /// Somebody else changes the file, or has put another in its place.
    Busy(String),
    /// The file cannot be changed.
    Unwritable(String),
}
