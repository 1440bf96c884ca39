//! What the modules of tests share.

pub(crate) mod booted;
pub(crate) mod browser;
pub(crate) mod control_group;
pub(crate) mod delay_line;
pub(crate) mod detour;
pub(crate) mod hand;
pub(crate) mod home_router;
pub(crate) mod host_view;
pub(crate) mod lan;
pub(crate) mod machine;
pub(crate) mod packets;
pub(crate) mod record_peer;
pub(crate) mod service_manager;
pub(crate) mod slow_link;
pub(crate) mod stock_peer;
pub(crate) mod unit;

/// The program.
pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_stream-router");

/// A runtime of the calling thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// Bytes that repeat neither within a stream nor between seeds.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) << 32 | 0x9E37_79B9;
    let mut bytes = Vec::with_capacity(len + 7);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
