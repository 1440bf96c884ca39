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
mod frame;
mod gateway;
mod maps;
mod offload;
mod packet;
mod steer;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_STOLEN};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
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

/// Ingress of a gateway interface: the way in from a network that this node is a router of.
#[xdp(frags)]
pub(crate) fn sr_gateway(ctx: XdpContext) -> u32 {
    let captured = gateway::capture(&frame::Frame::new(&ctx));
    counters::count(captured.err().unwrap_or(Reason::Captured));
    let reason = match captured {
        Ok(redirect) => return redirect,
        Err(reason) => reason,
    };
    match reason {
        // The ring has it, or nobody gets it: a full ring is a full queue of a router.
        Reason::Captured | Reason::RingFull | Reason::PeerPressure | Reason::NoRing | Reason::CopyFailed => {
            XDP_DROP
        }
        _ => XDP_PASS,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
