//! Reads a capture: cuts the stream into blocks of pcapng, as `API.md` says.

use std::borrow::Cow;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};

use super::packet::{
    CaptureDirection, CapturedPacket, NAME_COMMENT, OFFLOAD_COMMENT, PEER_COMMENT, parse_offload,
};
use router_common::frame::{MAX_PACKET_LEN, VnetHeader};
use stream_router_engine::causes::with_sources;

/// More than the header of a block, its options and what describes a capture need.
const MAX_BLOCK_OVERHEAD: usize = 4096;

/// Longest block in bytes.
pub const MAX_CAPTURE_BLOCK_LEN: usize = MAX_PACKET_LEN + MAX_BLOCK_OVERHEAD;

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
        reason: String,
    },
    /// What describes the capture, and blocks of a kind that is not known.
    Other,
}

/// One block of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureBlock<'a> {
    /// The whole block as it came.
    pub bytes: &'a [u8],
    /// What it says.
    pub record: CaptureRecord<'a>,
}

/// Cuts what comes from a node into blocks.
#[derive(Debug, Default)]
pub struct CaptureBlocks {
    buffer: Vec<u8>,
    start: usize,
    parser: Option<PcapNgParser>,
}

impl CaptureBlocks {
    /// Takes the next bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole block; `None` until more bytes come.
    ///
    /// # Errors
    /// Says what the bytes are, when they are no block of a capture; nothing behind can be read then.
    pub fn next_block(&mut self) -> Result<Option<CaptureBlock<'_>>, String> {
        let Self {
            buffer,
            start,
            parser,
        } = self;
        let rest = &buffer[*start..];
        let parsed = match parser {
            Some(parser) => parser.next_block(rest),
            None => PcapNgParser::new(rest).map(|(behind, begun)| {
                let section = Block::SectionHeader(begun.section().clone());
                *parser = Some(begun);
                (behind, section)
            }),
        };
        let (behind, block) = match parsed {
            Ok(parsed) => parsed,
            Err(PcapNgParseError::IncompleteBuffer(needed, _)) if needed <= MAX_CAPTURE_BLOCK_LEN => {
                return Ok(None);
            }
            Err(PcapNgParseError::IncompleteBuffer(needed, _)) => {
                return Err(format!("a block of {needed} bytes"));
            }
            Err(error) => return Err(with_sources(&error)),
        };
        let bytes = &rest[..rest.len() - behind.len()];
        *start += bytes.len();
        let record = match block {
            Block::EnhancedPacket(packet) => packet_of(packet).map(CaptureRecord::Packet),
            Block::InterfaceStatistics(statistics) => Some(statistics_of(&statistics)),
            _ => Some(CaptureRecord::Other),
        };
        // The parser remembers every interface.
        if parser
            .as_ref()
            .is_some_and(|parser| parser.interfaces().len() > 1)
        {
            return Err("more than one interface".to_owned());
        }
        let record =
            record.ok_or("a packet without a direction, or with a comment that contradicts itself")?;
        Ok(Some(CaptureBlock { bytes, record }))
    }

    /// Returns how many bytes there are of a block that has not come whole.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

fn packet_of(block: EnhancedPacketBlock<'_>) -> Option<CapturedPacket<'_>> {
    let (mut direction, mut peer, mut peer_name, mut vnet) = (None, None, None, VnetHeader::default());
    for option in &block.options {
        match option {
            EnhancedPacketOption::Flags(flags) => direction = CaptureDirection::from_flags(*flags),
            EnhancedPacketOption::Common(CommonOption::Comment(comment)) => {
                if let Some(id) = comment.strip_prefix(PEER_COMMENT) {
                    peer = Some(id.parse().ok()?);
                } else if let Some(name) = comment.strip_prefix(NAME_COMMENT) {
                    peer_name = Some(Cow::Owned(name.to_owned()));
                } else if let Some(fields) = comment.strip_prefix(OFFLOAD_COMMENT) {
                    vnet = parse_offload(fields)?;
                }
            }
            _ => {}
        }
    }
    Some(CapturedPacket {
        time_ns: u64::try_from(block.timestamp.as_nanos()).ok()?,
        direction: direction?,
        peer,
        peer_name,
        len: block.original_len,
        vnet,
        bytes: block.data,
    })
}

fn statistics_of(block: &InterfaceStatisticsBlock<'_>) -> CaptureRecord<'static> {
    let (mut dropped, mut end) = (0, None);
    for option in &block.options {
        match option {
            InterfaceStatisticsOption::IsbIfDrop(n) => dropped = *n,
            InterfaceStatisticsOption::Common(CommonOption::Comment(comment)) => end = Some(comment),
            _ => {}
        }
    }
    match end {
        Some(reason) => CaptureRecord::End {
            dropped,
            reason: reason.clone().into_owned(),
        },
        None => CaptureRecord::Dropped(dropped),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::control::capture::encode::CaptureEncoder;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn packet(bytes: &[u8]) -> CapturedPacket<'_> {
        CapturedPacket {
            time_ns: 0x0102_0304_0506_0708,
            direction: CaptureDirection::In,
            peer: Some(PEER.parse().unwrap()),
            peer_name: None,
            len: 1420,
            vnet: VnetHeader {
                gso_size: 1380,
                ..VnetHeader::default()
            },
            bytes: bytes.into(),
        }
    }

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat();
        option.extend_from_slice(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    }

    #[test]
    fn golden_bytes_of_the_blocks() {
        let mut encoder = CaptureEncoder::new("sr0", 96, HashMap::new());
        encoder.put_packet(&packet(&[0x45, 0x00]));

        let section = [
            &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..],
            &[0xff; 8],
            &option(4, concat!("stream-router ", env!("CARGO_PKG_VERSION")).as_bytes()),
            &[0; 4],
        ];
        let interface = [
            &[101, 0, 0, 0, 96, 0, 0, 0][..],
            &option(2, b"sr0"),
            &option(9, &[9]),
            &[0; 4],
        ];
        let offload = b"offload: flags=0 gso_type=0 hdr_len=0 gso_size=1380 csum_start=0 csum_offset=0";
        let packet = [
            &[0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 2, 0, 0, 0, 0x8c, 5, 0, 0][..],
            &[0x45, 0, 0, 0],
            &option(2, &[1, 0, 0, 0]),
            &option(1, format!("peer={PEER}").as_bytes()),
            &option(1, offload),
            &[0; 4],
        ];
        let expected = [
            block(0x0a0d_0d0a, &section.concat()),
            block(1, &interface.concat()),
            block(6, &packet.concat()),
        ];
        assert_eq!(encoder.take(), expected.concat());
    }

    #[test]
    fn losses_and_the_end_are_statistics() {
        let mut encoder = encoder();
        encoder.put_statistics(3, None);
        encoder.put_statistics(4, Some("why"));

        let mut blocks = begun();
        blocks.handle_bytes(&encoder.take());
        assert_eq!(next(&mut blocks), Ok(Some(CaptureRecord::Dropped(3))));
        let end = CaptureRecord::End {
            dropped: 4,
            reason: "why".to_owned(),
        };
        assert_eq!(next(&mut blocks), Ok(Some(end)));
    }

    #[test]
    fn a_kind_that_came_later_is_other_and_still_has_its_bytes() {
        let mut blocks = begun();
        let later = block(77, &[1, 2, 3, 4]);
        blocks.handle_bytes(&later);

        let found = blocks.next_block().unwrap().unwrap();
        assert_eq!((found.bytes, found.record), (&later[..], CaptureRecord::Other));
        assert_eq!(blocks.next_block(), Ok(None));
        assert_eq!(blocks.pending(), 0);
    }

    #[test]
    fn bytes_that_are_no_block_are_an_error() {
        let head = [0; 20];
        let without_direction = block(6, &head);
        let of_no_interface = block(6, &[&[1, 0, 0, 0], &head[4..]].concat());
        let wrong_peer = [&head[..], &option(2, &[1, 0, 0, 0]), &option(1, b"peer=nobody")].concat();
        let wrong_peer = block(6, &wrong_peer);
        let second_interface = block(1, &[101, 0, 0, 0, 96, 0, 0, 0]);
        for bytes in [
            &[6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[6, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[6, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0],
            // A packet without its head.
            &[6, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0],
            &without_direction,
            &of_no_interface,
            &wrong_peer,
            &second_interface,
        ] {
            let mut blocks = begun();
            blocks.handle_bytes(bytes);
            assert!(blocks.next_block().is_err(), "{bytes:?}");
        }
        let mut no_capture = CaptureBlocks::default();
        no_capture.handle_bytes(b"{\"error\": \"something\"}");
        assert!(no_capture.next_block().is_err());
    }

    #[test]
    fn a_left_checksum_is_finished_once_all_of_the_packet_is_there() {
        let mut whole = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 42, 0, 1], [10, 42, 0, 2], 64)
            .udp(1000, 2000)
            .write(&mut whole, b"payload!")
            .unwrap();
        let mut left = whole.clone();
        // The sum of the pseudo-header, as a host leaves it: addresses, protocol and length.
        let sum: u32 = [0x0a2a, 1, 0x0a2a, 2, 17, 16].iter().sum();
        left[26..28].copy_from_slice(&(sum as u16).to_be_bytes());
        let vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            csum_start: 20,
            csum_offset: 6,
            ..VnetHeader::default()
        };
        for (n, expected) in [(left.len(), &whole), (30, &left)] {
            let packet = CapturedPacket {
                len: left.len() as u32,
                vnet,
                ..packet(&left[..n])
            };
            let mut encoder = encoder();
            encoder.put_packet(&packet);

            let mut blocks = begun();
            blocks.handle_bytes(&encoder.take());
            let Some(CaptureRecord::Packet(found)) = next(&mut blocks).unwrap() else {
                panic!("no packet")
            };
            assert_eq!((&found.bytes[..], found.vnet), (&expected[..n], vnet));
        }
    }

    #[test]
    fn the_name_of_a_peer_stands_beside_its_id() {
        let packet = packet(&[0x45]);
        let names = HashMap::from([(packet.peer.unwrap(), "paris".to_owned())]);
        let mut encoder = CaptureEncoder::new("sr0", 96, names);
        encoder.put_packet(&packet);
        let mut blocks = CaptureBlocks::default();
        blocks.handle_bytes(&encoder.take());
        for _ in 0..2 {
            assert_eq!(next(&mut blocks), Ok(Some(CaptureRecord::Other)));
        }

        let Some(CaptureRecord::Packet(found)) = next(&mut blocks).unwrap() else {
            panic!("no packet")
        };

        let named = CapturedPacket {
            peer_name: Some("paris".into()),
            ..packet
        };
        assert_eq!(found, named);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_records(
            lens in prop::collection::vec(0usize..300, 1..10),
            cuts in prop::collection::vec(1usize..200, 1..10),
        ) {
            let packets: Vec<_> = lens.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
            let mut encoder = CaptureEncoder::new("sr0", 96, HashMap::new());
            for bytes in &packets {
                encoder.put_packet(&packet(bytes));
                encoder.put_statistics(bytes.len() as u64, None);
            }
            let stream = encoder.take();
            let mut blocks = CaptureBlocks::default();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            let (mut found, mut passed) = (Vec::new(), Vec::new());
            while at < stream.len() {
                let n = cuts.next().unwrap().min(stream.len() - at);
                blocks.handle_bytes(&stream[at..at + n]);
                at += n;
                while let Some(block) = blocks.next_block().unwrap() {
                    passed.extend_from_slice(block.bytes);
                    match block.record {
                        CaptureRecord::Packet(found_packet) => {
                            prop_assert_eq!(&found_packet, &packet(&found_packet.bytes));
                            found.push(found_packet.bytes.to_vec());
                        }
                        CaptureRecord::Dropped(n) => prop_assert_eq!(n as usize, found.last().unwrap().len()),
                        CaptureRecord::End { .. } => prop_assert!(false),
                        CaptureRecord::Other => prop_assert!(found.is_empty()),
                    }
                }
            }
            prop_assert_eq!(found, packets);
            prop_assert_eq!(passed, stream);
            prop_assert_eq!(blocks.pending(), 0);
        }

        #[test]
        fn any_bytes_are_blocks_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for mut blocks in [CaptureBlocks::default(), begun()] {
                blocks.handle_bytes(&bytes);
                while let Ok(Some(_)) = blocks.next_block() {}
            }
        }
    }

    /// Makes an encoder whose description of the capture was taken.
    fn encoder() -> CaptureEncoder {
        let mut encoder = CaptureEncoder::new("sr0", 96, HashMap::new());
        encoder.take();
        encoder
    }

    /// Makes a reader that has had the description of a capture.
    fn begun() -> CaptureBlocks {
        let mut blocks = CaptureBlocks::default();
        blocks.handle_bytes(&CaptureEncoder::new("sr0", 96, HashMap::new()).take());
        for _ in 0..2 {
            assert_eq!(next(&mut blocks), Ok(Some(CaptureRecord::Other)));
        }
        assert_eq!(blocks.pending(), 0);
        blocks
    }

    fn next(blocks: &mut CaptureBlocks) -> Result<Option<CaptureRecord<'_>>, String> {
        Ok(blocks.next_block()?.map(|block| block.record))
    }
}
