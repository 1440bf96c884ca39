//! The contract between the eBPF programs and user space: layouts, the parser, the flow hash, names.
//!
//! Everything here is the same code on both sides of the kernel boundary. Frames and records are laid out as the CPU has
//! them, so it has to be a little-endian one.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

#[cfg(target_endian = "big")]
compile_error!("the layouts that nodes exchange are little-endian: build for a little-endian target");

pub mod flow_entry;
pub mod flow_hash;
pub mod flow_key;
pub mod fragment;
pub mod frame;
pub mod gateway;
pub mod host_address;
pub mod names;
pub mod offload;
pub mod packet;
pub mod peer;
#[cfg(feature = "aya")]
mod pod;
pub mod reason;
pub mod record;
pub mod settings;
pub mod skb_layout;
pub mod slots;
pub mod verdict;
pub mod wake;

/// Version of every layout in this crate; the object carries it and user space refuses another.
pub const ABI_VERSION: u32 = 6;
