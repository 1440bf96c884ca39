//! What user space sets before it attaches the programs; time to live and version it may change while they run.

use crate::flow_hash::HashKey;

/// The one entry of the settings map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Settings {
    /// Key of the flow hash, random per start.
    pub hash_key: HashKey,
    /// Idle time after which a flow counts as gone.
    pub flow_ttl_ns: u64,
    /// MTU of the TUN device in bytes.
    pub device_mtu: u32,
    /// Version of the prefix table; see [`crate::flow_entry::FlowEntry::peers_version`].
    pub peers_version: u32,
}

// What changes is written in place, word by word.
const _: () = assert!(core::mem::offset_of!(Settings, flow_ttl_ns).is_multiple_of(8));
const _: () = assert!(core::mem::offset_of!(Settings, peers_version).is_multiple_of(4));
