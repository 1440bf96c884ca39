//! The first bytes of a stream of a lane, which say which of the lane's streams it is.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 8 | run: a random number of the sender's lanes |
//! | 8 | 8 | number of the stream in its lane, from 1 |
//! | 16 | 2 | index of the lane |
//! | 18 | 1 | flags: 1 if the stream before this one was lost |
//! | 19 | 5 | zero |
//!
//! Numbers are little-endian.

use super::limits::MAX_STREAMS_PER_SIDE;
use crate::egress::lane_stream::{LaneId, LaneStream};

/// Length of a preamble in bytes.
pub(super) const PREAMBLE_LEN: usize = 24;

/// Lanes that one run can have: a lane has a stream open at a time, and no side may have more of them.
pub(super) const MAX_LANES: u16 = MAX_STREAMS_PER_SIDE as u16;

const AFTER_LOSS: u8 = 1;

/// The preamble as bytes.
pub(super) type Preamble = [u8; PREAMBLE_LEN];

/// Returns the preamble of a stream.
pub(super) fn encode(stream: LaneStream) -> Preamble {
    let mut bytes = [0; PREAMBLE_LEN];
    bytes[..8].copy_from_slice(&stream.lane.run.to_le_bytes());
    bytes[8..16].copy_from_slice(&stream.number.to_le_bytes());
    bytes[16..18].copy_from_slice(&stream.lane.index.to_le_bytes());
    bytes[18] = if stream.after_loss { AFTER_LOSS } else { 0 };
    bytes
}

/// Reads a preamble. Returns `None` if it names a lane or a number that cannot be, or has bits set that mean nothing.
pub(super) fn decode(bytes: &Preamble) -> Option<LaneStream> {
    let [
        r0,
        r1,
        r2,
        r3,
        r4,
        r5,
        r6,
        r7,
        n0,
        n1,
        n2,
        n3,
        n4,
        n5,
        n6,
        n7,
        i0,
        i1,
        flags,
        unused @ ..,
    ] = *bytes;
    let stream = LaneStream {
        lane: LaneId {
            run: u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]),
            index: u16::from_le_bytes([i0, i1]),
        },
        number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
        after_loss: flags == AFTER_LOSS,
    };
    let can_be =
        stream.lane.index < MAX_LANES && stream.number > 0 && flags <= AFTER_LOSS && unused == [0; 5];
    can_be.then_some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: LaneStream = LaneStream {
        lane: LaneId {
            run: 0x1122_3344_5566_7788,
            index: 31,
        },
        number: 0x0102_0304_0506_0708,
        after_loss: true,
    };

    #[test]
    fn a_preamble_has_the_bytes_of_the_table() {
        let bytes = encode(STREAM);

        assert_eq!(
            bytes,
            [
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 8, 7, 6, 5, 4, 3, 2, 1, 31, 0, 1, 0, 0, 0, 0,
                0
            ]
        );
        assert_eq!(decode(&bytes), Some(STREAM));
        let after_a_close = LaneStream {
            after_loss: false,
            ..STREAM
        };
        assert_eq!(decode(&encode(after_a_close)), Some(after_a_close));
    }

    #[test]
    fn a_lane_or_number_that_cannot_be_and_unknown_bits_are_refused() {
        let good = encode(STREAM);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            bytes
        };
        let mut no_number = good;
        no_number[8..16].fill(0);

        for bad in [
            changed(16, 32),
            changed(17, 1),
            changed(18, 2),
            changed(18, 3),
            changed(19, 1),
            changed(23, 0x80),
            no_number,
        ] {
            assert_eq!(decode(&bad), None, "{bad:?}");
        }
    }
}
