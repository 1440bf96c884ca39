//! The framing of streams: cuts a byte stream into frames without copying each one.
//!
//! The layout is [`router_common::frame`]'s. A stream is one direction: the side that opens it writes frames until
//! it closes it.

use router_common::frame::{FrameHeader, MAX_PACKET_LEN, MIN_PACKET_LEN, VnetHeader};
use thiserror::Error;

/// Bytes that a decoder holds: four super-packets, which is what one read of a busy stream brings.
pub const DECODER_CAPACITY: usize = 256 * 1024;

/// Length of the largest frame in bytes.
const MAX_FRAME_LEN: usize = FrameHeader::LEN + MAX_PACKET_LEN;

const _: () = assert!(DECODER_CAPACITY >= 2 * MAX_FRAME_LEN);

/// Why the bytes of a stream are not frames. Nothing after the fault can be trusted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The length field is outside what a frame may carry.
    #[error("frame announces a packet of {len} bytes; allowed are {MIN_PACKET_LEN} to {MAX_PACKET_LEN}")]
    Length {
        /// The length that the frame announces, in bytes.
        len: u32,
    },
}

/// A whole frame, as it stands in the decoder's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    vnet_and_packet: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the offload header and the packet, as a TUN device takes them.
    pub fn vnet_and_packet(&self) -> &'a [u8] {
        self.vnet_and_packet
    }

    /// Returns the number of bytes that the frame took on the stream.
    pub fn wire_len(&self) -> usize {
        size_of::<u32>() + self.vnet_and_packet.len()
    }

    /// Returns the offload header.
    pub fn vnet(&self) -> VnetHeader {
        bytemuck::pod_read_unaligned(&self.vnet_and_packet[..VnetHeader::LEN])
    }

    /// Returns the packet, from its IP header on.
    pub fn packet(&self) -> &'a [u8] {
        &self.vnet_and_packet[VnetHeader::LEN..]
    }
}

/// Cuts what a stream delivers into frames, in place.
#[derive(Debug)]
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffer: vec![0; DECODER_CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }
}

impl Decoder {
    /// Returns the buffer for the next bytes of the stream. It is never empty once every whole frame has been taken.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < MAX_FRAME_LEN || self.end == self.buffer.len() {
            // The rest is part of one frame, so this moves less than a frame once per buffer.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// Records that the first `n` bytes of [`Decoder::space`] were filled.
    pub fn handle_read(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// Returns the whole frames that have come, one after the other.
    pub fn frames(&mut self) -> Frames<'_> {
        Frames {
            bytes: &self.buffer[self.start..self.end],
            start: &mut self.start,
        }
    }

    /// Returns how many bytes have come of a frame that is not whole yet.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }
}

/// The iterator over the whole frames of a [`Decoder`]. Frames stay readable until the decoder gets the next bytes.
///
/// An error means that the bytes cannot be a frame, and that the stream has to be reset.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    start: &'a mut usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (len, behind) = self.bytes.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        let packet_len = len as usize;
        if !(MIN_PACKET_LEN..=MAX_PACKET_LEN).contains(&packet_len) {
            return Some(Err(FrameError::Length { len }));
        }
        let (vnet_and_packet, rest) = behind.split_at_checked(VnetHeader::LEN + packet_len)?;
        self.bytes = rest;
        *self.start += FrameHeader::LEN + packet_len;
        Some(Ok(Frame { vnet_and_packet }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(packet: &[u8]) -> Vec<u8> {
        let vnet = VnetHeader {
            csum_start: packet.len() as u16,
            ..VnetHeader::default()
        };
        let header = FrameHeader {
            len: packet.len() as u32,
            vnet,
        };
        [bytemuck::bytes_of(&header), packet].concat()
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = decoder.space();
            let n = rest.len().min(space.len());
            assert!(n > 0, "decoder has no space and no frame");
            space[..n].copy_from_slice(&rest[..n]);
            decoder.handle_read(n);
            rest = &rest[n..];
            for frame in decoder.frames() {
                let frame = frame?;
                assert_eq!(frame.vnet().csum_start as usize, frame.packet().len() & 0xffff);
                frames.push(frame.packet().to_vec());
            }
        }
        Ok(frames)
    }

    #[test]
    fn golden_bytes_of_a_frame() {
        let bytes = encode(&[0x45; 20]);
        assert_eq!(&bytes[..16], [20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0]);
        assert_eq!(bytes.len(), 36);
    }

    #[test]
    fn length_outside_the_bounds_is_an_error() {
        for len in [0u32, 19, 65_536, u32::MAX] {
            let mut bytes = encode(&[0; 64]);
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            assert_eq!(
                feed(&mut Decoder::default(), &bytes),
                Err(FrameError::Length { len })
            );
        }
    }

    #[test]
    fn largest_frames_come_whole_back_to_back() {
        let packet = vec![7; MAX_PACKET_LEN];
        let bytes = [
            encode(&packet),
            encode(&packet),
            encode(&packet),
            encode(&packet),
            encode(&packet),
        ]
        .concat();
        let frames = feed(&mut Decoder::default(), &bytes).unwrap();
        assert!(frames.len() == 5 && frames.iter().all(|f| *f == packet));
    }

    #[test]
    fn truncated_frame_stays_pending() {
        let bytes = encode(&[1; 100]);
        let mut decoder = Decoder::default();
        assert!(feed(&mut decoder, &bytes[..bytes.len() - 1]).unwrap().is_empty());
        assert_eq!(decoder.pending(), bytes.len() - 1);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            lens in prop::collection::vec(prop_oneof![20usize..200, 20usize..=MAX_PACKET_LEN], 1..12),
            cuts in prop::collection::vec(1usize..100_000, 1..20),
        ) {
            let packets: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
            let stream: Vec<u8> = packets.iter().flat_map(|p| encode(p)).collect();
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < stream.len() {
                let n = cuts.next().unwrap().min(stream.len() - at);
                frames.extend(feed(&mut decoder, &stream[at..at + n]).unwrap());
                at += n;
            }
            prop_assert_eq!(frames, packets);
        }

        #[test]
        fn garbage_never_panics_and_never_yields_an_oversized_frame(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut decoder = Decoder::default();
            let n = bytes.len();
            decoder.space()[..n].copy_from_slice(&bytes);
            decoder.handle_read(n);
            for frame in decoder.frames().map_while(Result::ok) {
                prop_assert!((MIN_PACKET_LEN..=MAX_PACKET_LEN).contains(&frame.packet().len()));
            }
        }
    }
}
