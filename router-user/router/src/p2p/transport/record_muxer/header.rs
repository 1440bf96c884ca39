//! What stands behind the content of each record: whose it is, and what it is.
//!
//! | offset from the end | size | field |
//! |---:|---:|---|
//! | 5 | 4 | number of the stream, little-endian |
//! | 1 | 1 | kind |
//!
//! It stands behind the content, as TLS has its own type there, so that content is opened to where it is read from.

use super::Violation;

/// Length of a trailer in bytes.
pub(super) const TRAILER: usize = 5;

/// Number of a stream in its connection. The dialler's are even and the listener's odd; each side's rise, and none is
/// used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u32);

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The stream begins.
    Open,
    /// Bytes of the stream.
    Data,
    /// No more bytes follow from this side.
    End,
    /// The sender neither sends nor reads any more.
    Reset,
    /// The receiver may send so many bytes more: four bytes, little-endian.
    Credit,
    /// The sender has more to send than it may.
    Blocked,
}

impl StreamId {
    /// Says whether both numbers are of one side.
    pub(super) fn is_of_side(self, other: Self) -> bool {
        self.0 % 2 == other.0 % 2
    }

    /// Returns the number that follows on the same side.
    pub(super) fn next(self) -> Option<Self> {
        self.0.checked_add(2).map(Self)
    }
}

/// Returns the bytes of a trailer.
pub(super) fn encode(stream: StreamId, kind: Kind) -> [u8; TRAILER] {
    let [n0, n1, n2, n3] = stream.0.to_le_bytes();
    let kind = match kind {
        Kind::Open => 0,
        Kind::Data => 1,
        Kind::End => 2,
        Kind::Reset => 3,
        Kind::Credit => 4,
        Kind::Blocked => 5,
    };
    [n0, n1, n2, n3, kind]
}

/// Reads the trailer of a record. Returns it, and what stands before it.
pub(super) fn decode(record: &[u8]) -> Result<(StreamId, Kind, &[u8]), Violation> {
    let (content, &[n0, n1, n2, n3, kind]) = record.split_last_chunk().ok_or(Violation::Trailer)?;
    let kind = match kind {
        0 => Kind::Open,
        1 => Kind::Data,
        2 => Kind::End,
        3 => Kind::Reset,
        4 => Kind::Credit,
        5 => Kind::Blocked,
        _ => return Err(Violation::Trailer),
    };
    let fits = match kind {
        Kind::Data => !content.is_empty(),
        Kind::Credit => content.len() == 4,
        _ => content.is_empty(),
    };
    if !fits {
        return Err(Violation::Content);
    }
    Ok((StreamId(u32::from_le_bytes([n0, n1, n2, n3])), kind, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_has_the_bytes_of_the_table() {
        let record = [&b"abc"[..], &encode(StreamId(0x0102_0304), Kind::Data)].concat();

        assert_eq!(record, [b'a', b'b', b'c', 4, 3, 2, 1, 1]);
        assert_eq!(
            decode(&record),
            Ok((StreamId(0x0102_0304), Kind::Data, &b"abc"[..]))
        );
    }

    #[test]
    fn every_kind_has_the_content_that_belongs_to_it_and_no_other() {
        let kinds = [
            Kind::Open,
            Kind::Data,
            Kind::End,
            Kind::Reset,
            Kind::Credit,
            Kind::Blocked,
        ];
        for kind in kinds {
            let with = |content: &[u8]| [content, &encode(StreamId(7), kind)].concat();
            let fits = [&[][..], &[1][..], &[1, 2, 3, 4][..]].map(|content| decode(&with(content)).is_ok());
            let expected = match kind {
                Kind::Data => [false, true, true],
                Kind::Credit => [false, false, true],
                _ => [true, false, false],
            };
            assert_eq!(fits, expected, "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_trailer_is_refused() {
        assert_eq!(decode(&[1, 0, 0, 0]), Err(Violation::Trailer));
        assert_eq!(decode(&[1, 0, 0, 0, 6]), Err(Violation::Trailer));
        assert_eq!(decode(&[]), Err(Violation::Trailer));
    }
}
