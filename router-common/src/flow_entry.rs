//! An entry of the connection table.

/// What the kernel knows of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowEntry {
    /// First packet, in ns of the coarse monotonic clock.
    pub first_seen_ns: u64,
    /// Last packet, in ns of the coarse monotonic clock; an entry idle for longer than the TTL counts as absent.
    pub last_seen_ns: u64,
    /// Packets, a super-packet counting once.
    pub packets: u64,
    /// Bytes of the packets.
    pub bytes: u64,
    /// The worker of the flow.
    pub worker: u32,
    /// The peer of the destination, or [`crate::peer::NO_PEER`], by the prefix table of `peers_version`.
    pub peer: u32,
    /// Keyed hash of the flow.
    pub flow_hash: u32,
    /// Version of the prefix table that `peer` is from; once it is old, the flow's next packet looks the peer up anew.
    pub peers_version: u32,
    /// 1 if the flow's packets go by way of the device, because the kernel has to finish some of them; else 0.
    pub by_device: u32,
    /// Always 0.
    pub padding: u32,
}

impl FlowEntry {
    /// Says whether the flow has been idle for longer than `ttl_ns`.
    #[inline(always)]
    pub fn expired(&self, now_ns: u64, ttl_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_seen_ns) > ttl_ns
    }
}

const _: () = assert!(size_of::<FlowEntry>() == 56);
