//! What the checks look at.

use std::num::NonZeroU32;
use std::path::PathBuf;

use stream_router_engine::route_plan::RouteTable;

use super::node::RunningNode;
use crate::config::Config;

/// What every group of checks looks at.
pub(super) struct CheckInput {
    pub(super) config: Config,
    /// The file of `config`; `None` if `config` is made of defaults.
    pub(super) file: Option<PathBuf>,
    pub(super) running: RunningNode,
}

impl CheckInput {
    /// Returns the mark without which packets to peers would be led into the tunnel by rules; `None` if none does that.
    pub(super) fn mark(&self) -> Option<NonZeroU32> {
        let mut tables = self.config.routes().into_values();
        let diverts = tables.any(|table| table != RouteTable::Main);
        self.config.transport().fwmark().filter(|_| diverts)
    }
}
