//! From a frame of a gateway's network to its worker's ring, past the host's own forwarding.
#![expect(unsafe_code, reason = "reads a map entry in place")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::packet::{Behind, ethernet, hop, parse};
use router_common::peer::NO_PEER;
use router_common::reason::Reason;

use crate::frame::Frame;
use crate::maps::{GATEWAYS, PEERS, SETTINGS};
use crate::steer;

/// Takes the packet of a frame that a router would forward to a peer; every other frame stays as it is.
#[inline(always)]
pub(crate) fn capture(frame: &Frame) -> Reason {
    let Ok(header) = ethernet::parse(frame) else {
        return Reason::PassedMalformed;
    };
    let family = match header.ether_type {
        ethernet::IPV4 => FAMILY_V4,
        ethernet::IPV6 => FAMILY_V6,
        _ => return Reason::NotIp,
    };
    if !is_for_host(frame.interface(), &header.destination) {
        return Reason::PassedNotOurs;
    }
    let packet = Behind {
        reader: frame,
        base: header.len,
    };
    // Only a super-packet may leave its length out.
    let parsed = match parse(&packet, frame.len().saturating_sub(header.len)) {
        Ok(parsed) if parsed.key.family == family && parsed.total_len != 0 => parsed,
        _ => return Reason::PassedMalformed,
    };
    if let Err(reason) = check_route(&parsed.key) {
        return reason;
    }
    let hop = match hop::next_hop(&packet, family) {
        Ok(hop) => hop,
        Err(reason) => return reason,
    };
    if !SETTINGS
        .get(0)
        .is_some_and(|settings| parsed.total_len <= settings.device_mtu)
    {
        return Reason::PassedTooBig;
    }
    if !frame.store(header.len + hop.offset, hop.bytes) {
        return Reason::CopyFailed;
    }
    // The frame may be longer: Ethernet pads to 60 bytes.
    steer::hand_over(&packet, &parsed, parsed.total_len)
}

#[inline(always)]
fn is_for_host(interface: u32, destination: &[u8; 6]) -> bool {
    // SAFETY: entries are written before the program is attached and not changed.
    let gateway = unsafe { GATEWAYS.get(interface) };
    gateway.is_some_and(|gateway| gateway.address == *destination)
}

#[inline(always)]
fn check_route(key: &FlowKey) -> Result<(), Reason> {
    if steer::is_multicast(key) {
        return Err(Reason::Multicast);
    }
    if !is_peers(&key.destination) || is_link_local(&key.destination) {
        return Err(Reason::PassedNotOurs);
    }
    if is_peers(&key.source) || !is_unicast_source(key) {
        return Err(Reason::PassedSource);
    }
    Ok(())
}

/// User space puts the host's own networks into the table too, as nobody's, where they are inside a peer's.
#[inline(always)]
fn is_peers(address: &[u8; 16]) -> bool {
    PEERS
        .get(&Key::new(128, *address))
        .is_some_and(|peer| *peer != NO_PEER)
}

/// Says whether a router may forward what comes from this address (RFC 1812, 5.3.7; RFC 4291).
#[inline(always)]
fn is_unicast_source(key: &FlowKey) -> bool {
    let source = &key.source;
    if key.family == FAMILY_V4 {
        !matches!(source[12], 0 | 127 | 224..)
    } else {
        // ::/96 holds the unspecified and the loopback address; the rest of it has been out of use since RFC 4291.
        let reserved = source[0] == 0xff || source[..12] == [0; 12];
        !reserved && !is_link_local(source)
    }
}

#[inline(always)]
fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}
