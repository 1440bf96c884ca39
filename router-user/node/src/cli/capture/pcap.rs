//! The file format of libpcap, with times in nanoseconds
//! (<https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcap>).

use router_common::frame::VnetHeader;

use crate::control::CapturedPacket;
use stream_router_engine::checksum::finish_partial;

/// Times are in nanoseconds.
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Packets begin with their IP header.
const LINKTYPE_RAW: u32 = 101;

const NS_PER_S: u64 = 1_000_000_000;

/// What stands before the first packet.
pub(super) fn header(snaplen: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(24);
    header.extend_from_slice(&MAGIC_NS.to_le_bytes());
    for number in VERSION {
        header.extend_from_slice(&number.to_le_bytes());
    }
    // Time zone and accuracy, which nobody uses.
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&snaplen.to_le_bytes());
    header.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
    header
}

/// Appends a packet. A checksum that the host left to the device is finished, if all of the packet is there.
pub(super) fn put_packet(into: &mut Vec<u8>, packet: &CapturedPacket<'_>) {
    let (seconds, ns) = (packet.time_ns / NS_PER_S, packet.time_ns % NS_PER_S);
    for number in [seconds as u32, ns as u32, packet.bytes.len() as u32, packet.len] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    let start = into.len();
    into.extend_from_slice(packet.bytes);
    if packet.vnet.flags & VnetHeader::NEEDS_CSUM != 0 && packet.bytes.len() == packet.len as usize {
        finish_partial(
            &mut into[start..],
            packet.vnet.csum_start.into(),
            packet.vnet.csum_offset.into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::CaptureDirection;

    #[test]
    fn golden_bytes_of_a_file() {
        let mut file = header(96);
        put_packet(
            &mut file,
            &CapturedPacket {
                time_ns: 2 * NS_PER_S + 5,
                direction: CaptureDirection::Out,
                peer: &[],
                len: 1420,
                vnet: VnetHeader::default(),
                bytes: &[0x45, 1],
            },
        );
        assert_eq!(
            file,
            [
                &[
                    0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 96, 0, 0, 0, 101, 0, 0, 0
                ][..],
                &[2, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0x8c, 5, 0, 0, 0x45, 1],
            ]
            .concat()
        );
    }
}
