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
mod counters;
mod deliver;
mod flows;
mod fragments;
mod frame;
mod gateway;
mod maps;
mod packet;
mod steer;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_STOLEN, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway::Outcome;
use router_common::reason::Reason;
use router_common::verdict::{EgressVerdict, GatewayVerdict};

/// Egress of the TUN device: the whole way out of this node.
#[classifier]
pub(crate) fn sr_egress(ctx: TcContext) -> i32 {
    let reason = steer::steer(&packet::Skb::new(&ctx));
    counters::count(reason);
    match EgressVerdict::of(reason) {
        EgressVerdict::Stolen => TC_ACT_STOLEN,
        EgressVerdict::Ok => TC_ACT_OK,
        EgressVerdict::Shot => TC_ACT_SHOT,
    }
}

/// Ingress of a gateway interface behind the kernel's merging of frames: the way in from a network that this node is a router
/// of.
#[classifier]
pub(crate) fn sr_gateway_tc(ctx: TcContext) -> i32 {
    let reason = gateway::capture_received(&packet::Skb::new(&ctx));
    counters::count(reason);
    match GatewayVerdict::of(reason) {
        GatewayVerdict::Drop => TC_ACT_SHOT,
        // Others at the hook have their turn.
        GatewayVerdict::Pass => TC_ACT_UNSPEC,
    }
}

/// The same in the driver, before the kernel has made anything of the frame.
#[xdp(frags)]
pub(crate) fn sr_gateway(ctx: XdpContext) -> u32 {
    match gateway::capture(&frame::Frame::new(&ctx)) {
        Outcome::Redirected { action } => {
            counters::count(Reason::Captured);
            action
        }
        Outcome::Done(reason) => {
            counters::count(reason);
            match GatewayVerdict::of(reason) {
                GatewayVerdict::Drop => XDP_DROP,
                GatewayVerdict::Pass => XDP_PASS,
            }
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
