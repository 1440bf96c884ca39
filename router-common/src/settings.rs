//! What user space sets before it attaches the programs.

use crate::flow_hash::HashKey;

/// The one entry of the settings map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Settings {
    /// Key of the flow hash, random per start.
    pub hash_key: HashKey,
    /// Idle time after which a flow counts as gone.
    pub conn_ttl_ns: u64,
    /// MTU of the TUN device in bytes.
    pub device_mtu: u32,
    /// Always 0.
    pub padding: u32,
}
