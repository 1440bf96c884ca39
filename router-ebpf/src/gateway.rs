//! From a frame of a gateway's network to its worker's ring or socket, past the host's own forwarding.
#![expect(unsafe_code, reason = "reads a map entry in place")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::frame::VnetHeader;
use router_common::gateway::{Gateway, MAX_SOCKET_RECORD_LEN, NO_SOCKETS};
use router_common::offload::{Offloads, describe, describe_bytes, segment_len};
use router_common::packet::{Behind, Parsed, ethernet, hop, parse_into};
use router_common::peer::NO_PEER;
use router_common::reason::Reason;
use router_common::record::{RecordHeader, Unfinished};
use router_common::slots::MAX_WORKERS;

use crate::frame::Frame;
use crate::maps::{GATEWAYS, PEERS, SETTINGS, SOCKETS};
use crate::packet::{Packet, Skb, blur, keep_in_place, unparsed};
use crate::{deliver, steer};

/// What became of a frame.
pub(crate) enum Outcome {
    /// A socket gets it by this action of the program.
    Redirected { action: u32 },
    /// It went no further, or its packet was copied into a ring.
    Done(Reason),
}

/// A frame that has arrived, as a hook has it; offsets count from its Ethernet header.
pub(crate) trait Arrival: Packet + Sized {
    /// Length in bytes of all there is of it.
    fn len(&self) -> u32;
    /// Index of the interface that it has arrived at.
    fn interface(&self) -> u32;
    /// Payload bytes of a segment of a super-packet, else 0.
    fn gso_size(&self) -> u32;
    /// Describes what is undone of the packet; `None` as [`describe`].
    fn describe(packet: &Behind<'_, Self>, parsed: &Parsed, len: u32) -> Option<(VnetHeader, Unfinished)>;
    /// Overwrites bytes at `offset`.
    fn store<const N: usize>(&self, offset: u32, bytes: [u8; N]) -> bool;
}

/// A packet that is to go to a worker.
struct Taken {
    gateway: &'static Gateway,
    /// Where the packet starts.
    at: u32,
    len: u32,
    worker: u32,
    record: RecordHeader,
}

/// Takes the packet of a frame that a router would forward to a peer, as the driver has it; every other frame stays as it
/// is.
#[inline(always)]
pub(crate) fn capture(frame: &Frame) -> Outcome {
    let done = |reason| Outcome::Done(reason);
    match take(frame) {
        Ok(taken) => match socket(frame, &taken) {
            Some(socket) if frame.replace_head(taken.at, &taken.record) => {
                let redirected = SOCKETS.redirect(socket, 0);
                redirected.map_or(done(Reason::NoRing), |action| Outcome::Redirected { action })
            }
            Some(_) => done(Reason::CopyFailed),
            None => done(deliver(frame, &taken)),
        },
        Err(reason) => done(reason),
    }
}

/// Takes the packet of a frame as [`capture`] does, of which the kernel has made a socket buffer, perhaps of many frames one.
#[inline(always)]
pub(crate) fn capture_received(skb: &Skb) -> Reason {
    match take(skb) {
        Ok(taken) => deliver(skb, &taken),
        Err(reason) => reason,
    }
}

/// Copies the packet into the ring of its worker.
#[inline(always)]
fn deliver(frame: &impl Packet, taken: &Taken) -> Reason {
    let packet = Behind {
        reader: frame,
        base: taken.at,
    };
    deliver::deliver(&packet, taken.worker, &taken.record, taken.len)
}

/// Does a router's work on a packet that it would forward to a peer.
#[inline(always)]
fn take<A: Arrival>(frame: &A) -> Result<Taken, Reason> {
    let header = ethernet::parse(frame).or(Err(Reason::PassedMalformed))?;
    let at = blur(header.len, frame.len());
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
        base: at,
    };
    let mut parsed = unparsed();
    keep_in_place(&mut parsed);
    let room = frame.len().saturating_sub(at);
    let is_packet = parse_into(&packet, room, &mut parsed).is_ok();
    // The frame may be longer: Ethernet pads to 60 bytes. Only a super-packet may leave its length out, and has no padding.
    let is_super_packet = frame.gso_size() != 0;
    let len = if is_super_packet { room } else { parsed.total_len };
    if !is_packet || parsed.key.family != family || len == 0 {
        return Err(Reason::PassedMalformed);
    }
    check_route(&parsed.key)?;
    let hop = hop::next_hop(&packet, family)?;
    let device_mtu = SETTINGS.get(0).map_or(0, |settings| settings.device_mtu);
    if !is_super_packet && len > device_mtu {
        return Err(Reason::PassedTooBig);
    }
    // What is left to the device the host forwards there. How long segments are comes last: before, the verifier would follow
    // each kind of super-packet through all that is above.
    let (worker, record) = steer::lane(&mut parsed, len, |parsed| {
        let undone = A::describe(&packet, parsed, len);
        match &undone {
            Some((vnet, _)) if segment_len(&packet, vnet, len).is_none_or(|len| len > device_mtu) => {
                Err(Reason::PassedTooBig)
            }
            _ => Ok(undone),
        }
    })?;
    if !frame.store(at + hop.offset, hop.bytes) {
        return Err(Reason::CopyFailed);
    }
    Ok(Taken {
        gateway,
        at,
        len,
        worker,
        record,
    })
}

impl Arrival for Frame {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.interface()
    }

    /// Drivers deliver no super-packets here, and generic mode's are longer than any device's MTU.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn describe(packet: &Behind<'_, Self>, parsed: &Parsed, len: u32) -> Option<(VnetHeader, Unfinished)> {
        Some((describe_bytes(packet, parsed, len), Unfinished::default()))
    }

    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: [u8; N]) -> bool {
        self.store(offset, bytes)
    }
}

impl Arrival for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.interface()
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        Offloads::gso_size(self)
    }

    #[inline(always)]
    fn describe(packet: &Behind<'_, Self>, parsed: &Parsed, len: u32) -> Option<(VnetHeader, Unfinished)> {
        describe(packet, parsed, len)
    }

    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: [u8; N]) -> bool {
        self.store(offset, bytes)
    }
}

/// The place of the socket of `worker` at the queue of the frame, if there is one and the frame fits it.
#[inline(always)]
fn socket(frame: &Frame, taken: &Taken) -> Option<u32> {
    let gateway = taken.gateway;
    let queue = frame.queue();
    let fits = frame.len() + RecordHeader::LEN as u32 <= MAX_SOCKET_RECORD_LEN;
    if gateway.first_socket == NO_SOCKETS || queue >= gateway.n_queues || !fits || !frame.is_linear() {
        return None;
    }
    let place = gateway.first_socket + queue * MAX_WORKERS + taken.worker;
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
