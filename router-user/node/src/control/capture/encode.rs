//! Writes a capture as pcapng (<https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcapng>), as `API.md` says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness};

use super::packet::{CapturedPacket, NAME_COMMENT, PEER_COMMENT, offload_comment};
use router_common::frame::VnetHeader;
use stream_router_engine::checksum::finish_partial;

/// The one interface of a capture.
pub(super) const INTERFACE: u32 = 0;

/// Why no write fails.
const WRITES: &str = "a vector takes every block whose lengths and interface are right";

/// Turns packets into blocks.
pub(crate) struct CaptureEncoder {
    writer: PcapNgWriter<Vec<u8>>,
    names: HashMap<PeerId, String>,
    /// The peer of the last packet and its comment: most packets in a row have the same.
    peer: Option<(PeerId, String)>,
}

impl CaptureEncoder {
    /// Begins with the blocks that describe the capture, of so many bytes of each packet at `device`. Peers have `names`.
    pub(crate) fn new(device: &str, snaplen: u32, names: HashMap<PeerId, String>) -> Self {
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                "stream-router ",
                env!("CARGO_PKG_VERSION")
            )))],
            ..SectionHeaderBlock::default()
        };
        let mut encoder = Self {
            writer: PcapNgWriter::with_section_header(Vec::new(), section).expect(WRITES),
            names,
            peer: None,
        };
        encoder.put(InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(device)),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ],
        });
        encoder
    }

    /// Adds a packet. A checksum that the host left to the device is finished, if all of the packet is there.
    pub(crate) fn put_packet(&mut self, packet: &CapturedPacket<'_>) {
        let mut data = Cow::Borrowed(&packet.bytes[..]);
        if packet.vnet.flags & VnetHeader::NEEDS_CSUM != 0 && data.len() == packet.len as usize {
            let (start, offset) = (packet.vnet.csum_start, packet.vnet.csum_offset);
            finish_partial(data.to_mut(), start.into(), offset.into());
        }
        let mut options = Vec::with_capacity(4);
        options.push(EnhancedPacketOption::Flags(packet.direction.flags()));
        let mut known = self.peer.take().filter(|(id, _)| Some(*id) == packet.peer);
        if let Some(id) = packet.peer {
            let (_, comment) = known.get_or_insert_with(|| (id, format!("{PEER_COMMENT}{id}")));
            let comment = Cow::Borrowed(comment.as_str());
            options.push(EnhancedPacketOption::Common(CommonOption::Comment(comment)));
            if let Some(name) = self.names.get(&id) {
                let comment = Cow::Owned(format!("{NAME_COMMENT}{name}"));
                options.push(EnhancedPacketOption::Common(CommonOption::Comment(comment)));
            }
        }
        if packet.vnet != VnetHeader::default() {
            let comment = Cow::Owned(offload_comment(&packet.vnet));
            options.push(EnhancedPacketOption::Common(CommonOption::Comment(comment)));
        }
        self.put(EnhancedPacketBlock {
            interface_id: INTERFACE,
            timestamp: Duration::from_nanos(packet.time_ns),
            original_len: packet.len,
            data,
            options,
        });
        self.peer = known;
    }

    /// Adds how many packets there was no room for so far, and why the capture ends, if it does.
    pub(crate) fn put_statistics(&mut self, dropped: u64, end: Option<&str>) {
        // A clock that stands before 1970 says 0.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut options = vec![InterfaceStatisticsOption::IsbIfDrop(dropped)];
        if let Some(reason) = end {
            options.push(InterfaceStatisticsOption::IsbEndTime(now));
            let comment = CommonOption::Comment(Cow::Borrowed(reason));
            options.push(InterfaceStatisticsOption::Common(comment));
        }
        self.put(InterfaceStatisticsBlock {
            interface_id: INTERFACE,
            timestamp: now,
            options,
        });
    }

    /// Takes the bytes of what was added.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    fn put<'a>(&mut self, block: impl PcapNgBlock<'a>) {
        self.writer.write_pcapng_block(block).expect(WRITES);
    }
}
