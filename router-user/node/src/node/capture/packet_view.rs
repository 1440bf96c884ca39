//! A packet as a capture is shown it.

use libp2p::PeerId;

use crate::control::CaptureDirection;
use router_common::frame::VnetHeader;

/// A packet on its way, as a capture sees it.
#[derive(Clone, Copy)]
pub(in crate::node) struct PacketView<'a> {
    /// Which way it goes.
    pub(in crate::node) direction: CaptureDirection,
    /// Its peer, if it has one.
    pub(in crate::node) peer: Option<&'a PeerId>,
    /// Its offload header.
    pub(in crate::node) vnet: VnetHeader,
    /// The packet from its IP header on.
    pub(in crate::node) packet: &'a [u8],
}
