//! What the modules of tests share.

pub(crate) mod browser;
pub(crate) mod datagrams;
pub(crate) mod lan;
pub(crate) mod machine;
pub(crate) mod sequence;
pub(crate) mod service_manager;
pub(crate) mod stock_peer;
pub(crate) mod tally;
pub(crate) mod udp;
pub(crate) mod unit;

/// The program.
pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_stream-router");
