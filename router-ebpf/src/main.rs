//! The eBPF programs: parse a packet, steer its flow to a worker, deliver it.
//!
//! This file has the entry points only.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no atomic exchange in core::sync"
)]

mod abi;
mod connections;
mod counters;
mod deliver;
mod maps;
mod offload;
mod packet;
mod steer;

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_STOLEN};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use router_common::reason::Reason;

/// Egress of the TUN device: the whole way out of this node.
#[classifier]
pub(crate) fn sr_egress(ctx: TcContext) -> i32 {
    let reason = steer::steer(&packet::Skb::new(&ctx));
    counters::count(reason);
    match reason {
        Reason::Captured => TC_ACT_STOLEN,
        Reason::NotIp | Reason::Multicast | Reason::TooLarge => TC_ACT_OK,
        // A refusal tells a local sender's TCP at once; it holds back and loses nothing.
        _ => TC_ACT_SHOT,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
