//! The first bytes of a stream of a lane, which say which of the lane's streams it is.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 8 | run: a random number of the sending network, from its start to its end |
//! | 8 | 8 | set: a random number of the sender's lanes |
//! | 16 | 8 | number of the stream in its lane, from 1 |
//! | 24 | 2 | index of the lane |
//! | 26 | 1 | flags: 1 if the stream before this one was lost |
//! | 27 | 5 | zero |
//!
//! Numbers are little-endian.

use super::limits::MAX_STREAMS_PER_SIDE;
use crate::egress::lane_stream::{LaneId, LaneStream};

/// Length of a preamble in bytes.
pub(super) const PREAMBLE_LEN: usize = 32;

/// Lanes that one set can have: a lane has a stream open at a time, and no side may have more of them.
const MAX_LANES: u16 = MAX_STREAMS_PER_SIDE as u16;

const AFTER_LOSS: u8 = 1;

/// What a preamble says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    /// A random number of the sending network.
    pub(super) run: u64,
    /// Which of its lane's streams it is.
    pub(super) stream: LaneStream,
}

/// Returns the bytes of a preamble.
pub(super) fn encode(preamble: Preamble) -> [u8; PREAMBLE_LEN] {
    let Preamble { run, stream } = preamble;
    let mut bytes = [0; PREAMBLE_LEN];
    bytes[..8].copy_from_slice(&run.to_le_bytes());
    bytes[8..16].copy_from_slice(&stream.lane.set.to_le_bytes());
    bytes[16..24].copy_from_slice(&stream.number.to_le_bytes());
    bytes[24..26].copy_from_slice(&stream.lane.index.to_le_bytes());
    bytes[26] = if stream.after_loss { AFTER_LOSS } else { 0 };
    bytes
}

/// Reads a preamble. Returns `None` if it names a lane or a number that cannot be, or has bits set that mean nothing.
pub(super) fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Option<Preamble> {
    let (words, _) = bytes.as_chunks::<8>();
    let &[run, set, number, [i0, i1, flags, unused @ ..]] = words else {
        return None;
    };
    let stream = LaneStream {
        lane: LaneId {
            set: u64::from_le_bytes(set),
            index: u16::from_le_bytes([i0, i1]),
        },
        number: u64::from_le_bytes(number),
        after_loss: flags == AFTER_LOSS,
    };
    let can_be =
        stream.lane.index < MAX_LANES && stream.number > 0 && flags <= AFTER_LOSS && unused == [0; 5];
    can_be.then_some(Preamble {
        run: u64::from_le_bytes(run),
        stream,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREAMBLE: Preamble = Preamble {
        run: 0x1122_3344_5566_7788,
        stream: LaneStream {
            lane: LaneId {
                set: 0x99AA_BBCC_DDEE_FF00,
                index: 31,
            },
            number: 0x0102_0304_0506_0708,
            after_loss: true,
        },
    };

    #[test]
    fn a_preamble_has_the_bytes_of_the_table() {
        let bytes = encode(PREAMBLE);

        assert_eq!(
            bytes,
            [
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99,
                8, 7, 6, 5, 4, 3, 2, 1, 31, 0, 1, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(decode(&bytes), Some(PREAMBLE));
        let mut after_a_close = PREAMBLE;
        after_a_close.stream.after_loss = false;
        assert_eq!(decode(&encode(after_a_close)), Some(after_a_close));
    }

    #[test]
    fn a_lane_or_number_that_cannot_be_and_unknown_bits_are_refused() {
        let good = encode(PREAMBLE);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            bytes
        };
        let mut no_number = good;
        no_number[16..24].fill(0);

        for bad in [
            changed(24, 32),
            changed(25, 1),
            changed(26, 2),
            changed(26, 3),
            changed(27, 1),
            changed(31, 0x80),
            no_number,
        ] {
            assert_eq!(decode(&bad), None, "{bad:?}");
        }
    }
}
