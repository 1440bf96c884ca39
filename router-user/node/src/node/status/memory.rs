//! What the node may have of memory, and what its tables and rings take.

use crate::config::{Config, MemoryLimit, peers_bytes, table_bytes};
use crate::control::MemoryStatus;
use stream_router_engine::received_flows::ReceivedFlows;

/// Returns it for a node that runs with `config` as a part of this process.
pub(crate) fn memory_status(config: &Config) -> MemoryStatus {
    let limit = MemoryLimit::own();
    let max_flows = config.connections().max_entries();
    MemoryStatus {
        limit_bytes: limit.map(|limit| limit.bytes),
        limited_by: limit.and_then(|limit| Some(limit.group.as_ref()?.display().to_string())),
        max_flows,
        table_bytes: table_bytes(max_flows),
        received_table_bytes: ReceivedFlows::table_bytes(max_flows),
        ring_bytes: config.workers().ring_bytes(),
        peers_bytes: peers_bytes(
            config.peers().len(),
            config.peers().iter().map(|peer| peer.allowed_ips().len()).sum(),
        ),
    }
}
