//! Where the running kernel keeps what it knows of a packet's offloads; no stable interface says it.

/// Byte offsets in `struct sk_buff` and `struct skb_shared_info`, which user space reads from the kernel's type
/// information and sets before it loads the programs. All zero where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SkbLayout {
    /// Byte that holds `ip_summed`; 0 if the layout is unknown.
    pub ip_summed: u32,
    /// How far `ip_summed`, of two bits, is shifted in it.
    pub ip_summed_shift: u32,
    /// Byte that holds `csum_not_inet`; 0 for a kernel without it.
    pub csum_not_inet: u32,
    /// The bit of `csum_not_inet` in it.
    pub csum_not_inet_mask: u32,
    /// `csum_start`; `csum_offset` follows it.
    pub csum_start: u32,
    /// `inner_network_header`.
    pub inner_network_header: u32,
    /// `mac_header`, which is the start of the packet where the program runs.
    pub mac_header: u32,
    /// `end`, the offset of the shared info from `head`.
    pub end: u32,
    /// `head`.
    pub head: u32,
    /// `gso_type` in the shared info.
    pub gso_type: u32,
}
