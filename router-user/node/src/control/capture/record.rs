//! The records of a capture, as `API.md` lays them out.

use router_common::frame::{MAX_PACKET_LEN, VnetHeader};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureDirection {
    /// From the host to a peer.
    Out,
    /// From a peer into the host.
    In,
}

/// What a capture says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureRecord<'a> {
    /// A packet.
    Packet(CapturedPacket<'a>),
    /// How many packets there was no room for, so far.
    Dropped(u64),
    /// The node has ended the capture.
    End {
        /// How many packets there was no room for.
        dropped: u64,
        /// Why.
        reason: &'a str,
    },
}

/// A captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPacket<'a> {
    /// When the node took it, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Which way it goes.
    pub direction: CaptureDirection,
    /// Id of the peer it goes to or comes from, as libp2p writes ids in bytes; empty if it is nobody's.
    pub peer: &'a [u8],
    /// Its length in bytes, however much of it is here.
    pub len: u32,
    /// Its offload header.
    pub vnet: VnetHeader,
    /// Its bytes from the IP header on, as many as were asked for.
    pub bytes: &'a [u8],
}

const KIND_PACKET: u8 = 1;
const KIND_DROPPED: u8 = 2;
const KIND_END: u8 = 3;

/// Of every record: length, kind, direction, length of the peer's id, time or number.
const HEAD_LEN: usize = 16;
/// Of a packet besides: its length and offload header.
const PACKET_HEAD_LEN: usize = 4 + VnetHeader::LEN;
/// More than any peer's id has.
const MAX_TEXT_LEN: usize = 1024;

/// Longest record in bytes.
pub const MAX_CAPTURE_RECORD_LEN: usize = HEAD_LEN + PACKET_HEAD_LEN + MAX_TEXT_LEN + MAX_PACKET_LEN;

impl CaptureDirection {
    fn code(self) -> u8 {
        match self {
            Self::Out => 0,
            Self::In => 1,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// Appends a packet.
pub(crate) fn put_packet(into: &mut Vec<u8>, packet: &CapturedPacket<'_>) {
    let peer_len = packet.peer.len() as u16;
    let len = HEAD_LEN - 4 + PACKET_HEAD_LEN + packet.peer.len() + packet.bytes.len();
    put_head(
        into,
        len,
        KIND_PACKET,
        packet.direction.code(),
        peer_len,
        packet.time_ns,
    );
    into.extend_from_slice(&packet.len.to_le_bytes());
    into.extend_from_slice(bytemuck::bytes_of(&packet.vnet));
    into.extend_from_slice(packet.peer);
    into.extend_from_slice(packet.bytes);
}

/// Appends how many packets there was no room for.
pub(crate) fn put_dropped(into: &mut Vec<u8>, dropped: u64) {
    put_head(into, HEAD_LEN - 4, KIND_DROPPED, 0, 0, dropped);
}

/// Appends the end.
pub(crate) fn put_end(into: &mut Vec<u8>, dropped: u64, reason: &str) {
    put_head(into, HEAD_LEN - 4 + reason.len(), KIND_END, 0, 0, dropped);
    into.extend_from_slice(reason.as_bytes());
}

fn put_head(into: &mut Vec<u8>, len: usize, kind: u8, direction: u8, peer_len: u16, number: u64) {
    into.extend_from_slice(&(len as u32).to_le_bytes());
    into.extend_from_slice(&[kind, direction]);
    into.extend_from_slice(&peer_len.to_le_bytes());
    into.extend_from_slice(&number.to_le_bytes());
}

/// Cuts what comes from a node into records.
#[derive(Debug, Default)]
pub struct CaptureRecords {
    buffer: Vec<u8>,
    start: usize,
}

impl CaptureRecords {
    /// Takes the next bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record; `None` until more bytes come. Records of kinds that came later are left out.
    ///
    /// # Errors
    /// What the bytes are, when they are no record; nothing behind can be read then.
    pub fn next_record(&mut self) -> Result<Option<CaptureRecord<'_>>, String> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some((len, behind)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let len = u32::from_le_bytes(*len) as usize;
            if !(HEAD_LEN - 4..=MAX_CAPTURE_RECORD_LEN - 4).contains(&len) {
                return Err(format!("a record of {len} bytes"));
            }
            if behind.len() < len {
                return Ok(None);
            }
            let at = self.start + 4;
            self.start = at + len;
            if matches!(self.buffer[at], KIND_PACKET | KIND_DROPPED | KIND_END) {
                let record = read(&self.buffer[at..at + len]);
                return record
                    .map(Some)
                    .ok_or_else(|| "a record that contradicts itself".to_owned());
            }
        }
    }

    /// Bytes of a record that has not come whole.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

fn read(record: &[u8]) -> Option<CaptureRecord<'_>> {
    let ([kind, direction], rest) = record.split_first_chunk()?;
    let (peer_len, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let number = u64::from_le_bytes(*number);
    Some(match *kind {
        KIND_DROPPED => CaptureRecord::Dropped(number),
        KIND_END => CaptureRecord::End {
            dropped: number,
            reason: str::from_utf8(rest).ok()?,
        },
        _ => {
            let (len, rest) = rest.split_first_chunk()?;
            let (vnet, rest) = rest.split_first_chunk::<{ VnetHeader::LEN }>()?;
            let (peer, bytes) = rest.split_at_checked(u16::from_le_bytes(*peer_len).into())?;
            CaptureRecord::Packet(CapturedPacket {
                time_ns: number,
                direction: match *direction {
                    0 => CaptureDirection::Out,
                    1 => CaptureDirection::In,
                    _ => return None,
                },
                peer,
                len: u32::from_le_bytes(*len),
                vnet: bytemuck::pod_read_unaligned(vnet),
                bytes,
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet<'a>(bytes: &'a [u8], peer: &'a [u8]) -> CapturedPacket<'a> {
        CapturedPacket {
            time_ns: 0x0102_0304_0506_0708,
            direction: CaptureDirection::In,
            peer,
            len: 1420,
            vnet: VnetHeader {
                gso_size: 1380,
                ..VnetHeader::default()
            },
            bytes,
        }
    }

    #[test]
    fn golden_bytes_of_the_records() {
        let mut bytes = Vec::new();
        put_packet(&mut bytes, &packet(&[0x45, 0x00], &[9]));
        put_dropped(&mut bytes, 3);
        put_end(&mut bytes, 4, "why");
        assert_eq!(
            bytes,
            [
                &[31, 0, 0, 0, 1, 1, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1][..],
                &[0x8c, 5, 0, 0],
                &[0, 0, 0, 0, 0x64, 5, 0, 0, 0, 0, 0, 0],
                &[9, 0x45, 0],
                &[12, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
                &[15, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
                b"why",
            ]
            .concat()
        );
    }

    #[test]
    fn a_kind_that_came_later_is_left_out() {
        let mut bytes = vec![13, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        put_dropped(&mut bytes, 3);
        let mut records = CaptureRecords::default();
        records.handle_bytes(&bytes);

        assert_eq!(records.next_record(), Ok(Some(CaptureRecord::Dropped(3))));
        assert_eq!(records.next_record(), Ok(None));
        assert_eq!(records.pending(), 0);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        for bytes in [
            &[0, 0, 0, 0][..],
            &[0xff, 0xff, 0xff, 0xff],
            &[11, 0, 0, 0],
            // A packet without its head.
            &[12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut records = CaptureRecords::default();
            records.handle_bytes(bytes);
            assert!(records.next_record().is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_records(
            lens in prop::collection::vec(0usize..300, 1..10),
            cuts in prop::collection::vec(1usize..200, 1..10),
        ) {
            let packets: Vec<_> = lens.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
            let mut stream = Vec::new();
            for bytes in &packets {
                put_packet(&mut stream, &packet(bytes, b"peer"));
                put_dropped(&mut stream, bytes.len() as u64);
            }
            let mut records = CaptureRecords::default();
            let (mut at, mut cuts, mut found) = (0, cuts.into_iter().cycle(), Vec::new());
            while at < stream.len() {
                let n = cuts.next().unwrap().min(stream.len() - at);
                records.handle_bytes(&stream[at..at + n]);
                at += n;
                while let Some(record) = records.next_record().unwrap() {
                    match record {
                        CaptureRecord::Packet(found_packet) => {
                            prop_assert_eq!(found_packet, packet(found_packet.bytes, b"peer"));
                            found.push(found_packet.bytes.to_vec());
                        }
                        CaptureRecord::Dropped(n) => prop_assert_eq!(n as usize, found.last().unwrap().len()),
                        CaptureRecord::End { .. } => prop_assert!(false),
                    }
                }
            }
            prop_assert_eq!(found, packets);
            prop_assert_eq!(records.pending(), 0);
        }
    }
}
