//! Packets that the egress program left to the device. The kernel has done to them what the program could not describe, so
//! those for a peer go on from here; the others are counted and dropped, so that the device's queue never fills.

use std::io;
use std::time::{Duration, Instant};

use nix::libc;
use tokio::time::sleep;

use super::counters::PacketCounter;
use super::data_path::DataPath;
use super::forwarder::Forwarder;
use super::host::DeviceLost;
use crate::device::{READ_OR_GONE, Tun};
use router_common::flow_hash::{HashKey, flow_hash};
use router_common::frame::{FrameHeader, MAX_PACKET_LEN, VnetHeader};
use router_common::packet::parse;
use stream_router_engine::fragments::FragmentTable;
use stream_router_engine::software_offload::unfinished;

/// Most packets that are read before their peers' streams get them.
const TURN_PACKETS: usize = 64;

/// How often packets that wait for their peer are looked at when none comes.
pub(super) const HOLD_CHECK: Duration = Duration::from_millis(100);

/// Where the offload header of a frame starts.
const VNET_OFFSET: usize = FrameHeader::LEN - VnetHeader::LEN;

/// Reads the packets of `device` for as long as it exists, and forwards those that a peer may get. The flows are hashed
/// with `hash_key`, as the kernel does it; `name` is the device's.
///
/// # Errors
/// The device was deleted, or cannot be read.
pub(super) async fn run(device: Tun, name: String, data_path: DataPath, hash_key: HashKey) -> io::Result<()> {
    let device = device.into_async()?;
    let mut forwarder = Forwarder::new(&data_path);
    let fragments = FragmentTable::new(hash_key);
    let mut frame = vec![0; FrameHeader::LEN + MAX_PACKET_LEN];
    loop {
        let mut guard = tokio::select! {
            guard = device.ready(READ_OR_GONE) => guard?,
            () = sleep(HOLD_CHECK), if forwarder.holds_packets() => {
                forwarder.handle_turn(Instant::now());
                forwarder.flush();
                continue;
            }
        };
        forwarder.handle_turn(Instant::now());
        for _ in 0..TURN_PACKETS {
            let read = guard.get_inner().try_read(&mut frame[VNET_OFFSET..]);
            let read = read.map_err(|error| match error.raw_os_error() {
                Some(libc::EBADFD) => io::Error::other(DeviceLost::Deleted { name: name.clone() }),
                _ => error,
            });
            let Some(n) = read? else {
                guard.clear_ready();
                break;
            };
            let counter = match forward(&mut frame, VNET_OFFSET + n, &mut forwarder, &hash_key, &fragments) {
                Some(()) => PacketCounter::TxByDevice,
                None => PacketCounter::TxNotCaptured,
            };
            data_path.counters.add(counter, 1);
        }
        forwarder.flush();
        drop(guard);
        tokio::task::yield_now().await;
    }
}

/// Forwards the packet whose offload header and bytes end at `end`. `None` if it is none for a single host.
fn forward(
    frame: &mut [u8],
    end: usize,
    forwarder: &mut Forwarder,
    hash_key: &HashKey,
    fragments: &FragmentTable,
) -> Option<()> {
    let frame = frame.get_mut(..end)?;
    let (head, packet) = frame.split_at_mut_checked(FrameHeader::LEN)?;
    let len = packet.len();
    let parsed = parse(&*packet, len as u32).ok()?;
    if parsed.key.is_multicast() {
        return None;
    }
    let mut vnet: VnetHeader = bytemuck::pod_read_unaligned(&head[VNET_OFFSET..]);
    // The kernel also says there how much of the packet lies in one piece, and that it has checked it.
    vnet.flags &= VnetHeader::NEEDS_CSUM;
    vnet.num_buffers = 0;
    vnet.hdr_len = 0;
    if vnet.gso_type != VnetHeader::GSO_NONE {
        vnet.hdr_len = (parsed.transport_offset + parsed.transport_len) as u16;
    }
    let header = FrameHeader {
        len: len as u32,
        vnet,
    };
    head.copy_from_slice(bytemuck::bytes_of(&header));
    let unfinished = unfinished(&vnet, &parsed, len);
    let mut key = parsed.key;
    // A later fragment whose first one went another way has only its own key.
    if parsed.fragment
        && let Some(of_packet) = fragments.flow_key(&parsed)
    {
        key = of_packet;
    }
    forwarder.handle_frame(flow_hash(hash_key, &key), unfinished, frame);
    Some(())
}
