//! What the loader and the kernel read from the object besides its programs and maps.
#![expect(unsafe_code, reason = "places statics in named sections")]

use router_common::ABI_VERSION;

/// User space refuses an object of another version.
#[unsafe(link_section = "stream_router_abi")]
#[unsafe(no_mangle)]
static STREAM_ROUTER_ABI: [u8; 4] = ABI_VERSION.to_le_bytes();

/// The helpers that copy packets are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
