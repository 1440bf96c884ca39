//! What the checks look at.

use std::path::PathBuf;

use super::node::RunningNode;
use crate::config::Config;

/// What every group of checks looks at.
pub(super) struct CheckInput {
    pub(super) config: Config,
    /// The file of `config`; `None` if `config` is made of defaults.
    pub(super) file: Option<PathBuf>,
    pub(super) running: RunningNode,
}
