//! From a frame of a gateway's network to its worker's ring or socket, past the host's own forwarding.
#![expect(unsafe_code, reason = "reads a map entry in place")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::gateway::{Gateway, MAX_SOCKET_RECORD_LEN, NO_SOCKETS};
use router_common::offload::describe_bytes;
use router_common::packet::{Behind, ethernet, hop, parse_into};
use router_common::peer::NO_PEER;
use router_common::reason::Reason;
use router_common::record::{RecordHeader, Unfinished};
use router_common::slots::MAX_WORKERS;

use crate::frame::Frame;
use crate::maps::{GATEWAYS, PEERS, SETTINGS, SOCKETS};
use crate::packet::{keep_in_place, unparsed};
use crate::{deliver, flows, steer};

/// What became of a frame.
pub(crate) enum Outcome {
    /// A socket gets it by this action of the program.
    Redirected { action: u32 },
    /// It went no further, or its packet was copied into a ring.
    Done(Reason),
}

/// Takes the packet of a frame that a router would forward to a peer; every other frame stays as it is.
#[inline(always)]
pub(crate) fn capture(frame: &Frame) -> Outcome {
    match try_capture(frame) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::Done(reason),
    }
}

#[inline(always)]
fn try_capture(frame: &Frame) -> Result<Outcome, Reason> {
    let header = ethernet::parse(frame).or(Err(Reason::PassedMalformed))?;
    let family = match header.ether_type {
        ethernet::IPV4 => FAMILY_V4,
        ethernet::IPV6 => FAMILY_V6,
        _ => return Err(Reason::NotIp),
    };
    // SAFETY: an entry is changed by putting another in its place, never in place.
    let gateway = unsafe { GATEWAYS.get(frame.interface()) };
    let Some(gateway) = gateway.filter(|gateway| gateway.address == header.destination) else {
        return Err(Reason::PassedNotOurs);
    };
    let packet = Behind {
        reader: frame,
        base: header.len,
    };
    // Only a super-packet may leave its length out.
    let mut parsed = unparsed();
    keep_in_place(&mut parsed);
    let is_packet = parse_into(&packet, frame.len().saturating_sub(header.len), &mut parsed).is_ok();
    if !is_packet || parsed.key.family != family || parsed.total_len == 0 {
        return Err(Reason::PassedMalformed);
    }
    check_route(&parsed.key)?;
    let hop = hop::next_hop(&packet, family)?;
    let settings = SETTINGS.get(0);
    if settings.is_none_or(|settings| parsed.total_len > settings.device_mtu) {
        return Err(Reason::PassedTooBig);
    }
    // The frame may be longer: Ethernet pads to 60 bytes.
    let len = parsed.total_len;
    let flow = flows::entry(&mut parsed, len).ok_or(Reason::NoRing)?;
    if flow.by_device {
        // The host forwards it there.
        return Err(Reason::LeftToDevice);
    }
    // Drivers deliver no super-packets here, and generic mode's are longer than any device's MTU.
    let vnet = describe_bytes(&packet, &parsed, len);
    let record = steer::record(&parsed, len, &flow, vnet, Unfinished::default())?;
    let worker = flow.worker;
    if !frame.store(header.len + hop.offset, hop.bytes) {
        return Err(Reason::CopyFailed);
    }
    match socket(frame, gateway, worker) {
        Some(socket) if frame.replace_head(header.len, &record) => {
            let redirected = SOCKETS.redirect(socket, 0);
            redirected
                .map(|action| Outcome::Redirected { action })
                .or(Err(Reason::NoRing))
        }
        Some(_) => Err(Reason::CopyFailed),
        None => Ok(Outcome::Done(deliver::deliver(&packet, worker, &record, len))),
    }
}

/// The place of the socket of `worker` at the queue of the frame, if there is one and the frame fits it.
#[inline(always)]
fn socket(frame: &Frame, gateway: &Gateway, worker: u32) -> Option<u32> {
    let queue = frame.queue();
    let fits = frame.len() + RecordHeader::LEN as u32 <= MAX_SOCKET_RECORD_LEN;
    if gateway.first_socket == NO_SOCKETS || queue >= gateway.n_queues || !fits || !frame.is_linear() {
        return None;
    }
    let place = gateway.first_socket + queue * MAX_WORKERS + worker;
    SOCKETS.get(place).map(|_queue| place)
}

#[inline(always)]
fn check_route(key: &FlowKey) -> Result<(), Reason> {
    if key.is_multicast() {
        return Err(Reason::Multicast);
    }
    if !is_peers(&key.destination) || key.has_link_local_destination() {
        return Err(Reason::PassedNotOurs);
    }
    if is_peers(&key.source) || !key.has_host_source() {
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
