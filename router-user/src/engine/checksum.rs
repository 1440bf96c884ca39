//! The Internet checksum (RFC 1071).

/// A one's complement sum in the making.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes; those of an odd length count as if a zero followed, so only the last may have one.
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            self.0 += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// The sum itself: what a checksum field holds that is still to be finished.
    pub(crate) fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_be_bytes()
    }

    /// The checksum as it stands in a header.
    pub(crate) fn finish(self) -> [u8; 2] {
        self.fold().map(|byte| !byte)
    }

    /// Whether the bytes added, a finished checksum among them, are as it says.
    pub(crate) fn is_right(self) -> bool {
        self.fold() == [0xff; 2]
    }
}
