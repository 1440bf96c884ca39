//! A captured packet, and what of its offload header a comment says.

use std::borrow::Cow;

use libp2p::PeerId;

use router_common::frame::VnetHeader;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureDirection {
    /// From the host to a peer.
    Out,
    /// From a peer into the host.
    In,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPacket<'a> {
    /// When the node took it, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Which way it goes.
    pub direction: CaptureDirection,
    /// The peer it goes to or comes from, unless it is nobody's.
    pub peer: Option<PeerId>,
    /// The name of this peer, if the capture says it.
    pub peer_name: Option<Cow<'a, str>>,
    /// Its length in bytes, however much of it is here.
    pub len: u32,
    /// Its offload header.
    pub vnet: VnetHeader,
    /// Its bytes from the IP header on, as many as were asked for.
    pub bytes: Cow<'a, [u8]>,
}

/// What the comment with the peer's id begins with.
pub(super) const PEER_COMMENT: &str = "peer=";
/// What the comment with the peer's name begins with.
pub(super) const NAME_COMMENT: &str = "peer_name=";
/// What the comment with the offload header begins with.
pub(super) const OFFLOAD_COMMENT: &str = "offload: ";

impl CaptureDirection {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }

    /// Returns the direction as the lowest bits of `epb_flags` say it.
    pub(super) fn flags(self) -> u32 {
        match self {
            Self::In => 1,
            Self::Out => 2,
        }
    }

    /// Returns the direction that `epb_flags` says.
    pub(super) fn from_flags(flags: u32) -> Option<Self> {
        match flags & 3 {
            1 => Some(Self::In),
            2 => Some(Self::Out),
            _ => None,
        }
    }
}

/// Returns the comment of an offload header.
pub(super) fn offload_comment(vnet: &VnetHeader) -> String {
    let VnetHeader {
        flags,
        gso_type,
        hdr_len,
        gso_size,
        csum_start,
        csum_offset,
        num_buffers: _,
    } = vnet;
    format!(
        "{OFFLOAD_COMMENT}flags={flags} gso_type={gso_type} hdr_len={hdr_len} gso_size={gso_size} \
         csum_start={csum_start} csum_offset={csum_offset}"
    )
}

/// Returns the offload header that stands behind [`OFFLOAD_COMMENT`]; names that are not known are left out.
pub(super) fn parse_offload(comment: &str) -> Option<VnetHeader> {
    let mut vnet = VnetHeader::default();
    for field in comment.split_ascii_whitespace() {
        let (name, value) = field.split_once('=')?;
        match name {
            "flags" => vnet.flags = value.parse().ok()?,
            "gso_type" => vnet.gso_type = value.parse().ok()?,
            "hdr_len" => vnet.hdr_len = value.parse().ok()?,
            "gso_size" => vnet.gso_size = value.parse().ok()?,
            "csum_start" => vnet.csum_start = value.parse().ok()?,
            "csum_offset" => vnet.csum_offset = value.parse().ok()?,
            _ => {}
        }
    }
    Some(vnet)
}
