//! What the loader and the kernel read from the object besides its programs and maps.
#![expect(unsafe_code, reason = "places statics in named sections")]

use aya_ebpf::Global;
use router_common::ABI_VERSION;
use router_common::skb_layout::SkbLayout;

/// Set before the programs are loaded.
#[unsafe(no_mangle)]
pub(crate) static SKB_LAYOUT: Global<SkbLayout> = Global::new(SkbLayout {
    ip_summed: 0,
    ip_summed_shift: 0,
    csum_not_inet: 0,
    csum_not_inet_mask: 0,
    csum_start: 0,
    inner_network_header: 0,
    mac_header: 0,
    end: 0,
    head: 0,
    gso_type: 0,
});

/// User space refuses an object of another version.
#[unsafe(link_section = "stream_router_abi")]
#[unsafe(no_mangle)]
static STREAM_ROUTER_ABI: [u8; 4] = ABI_VERSION.to_le_bytes();

/// The helpers that copy packets are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
