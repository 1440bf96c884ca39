//! The Internet checksum (RFC 1071).

/// A one's complement sum to which bytes can be added.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes. An odd number of them counts as if a zero followed, so only the last addition may have one.
    pub fn add_bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            self.0 += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// Returns the sum itself, which is what a checksum field holds that is still to be finished.
    pub(crate) fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_be_bytes()
    }

    /// Returns the checksum as it stands in a header.
    pub fn finish(self) -> [u8; 2] {
        self.fold().map(|byte| !byte)
    }

    /// Says whether the added bytes, among them a finished checksum, match that checksum.
    pub(crate) fn is_right(self) -> bool {
        self.fold() == [0xff; 2]
    }
}

/// Finishes the checksum of a packet whose checksum field holds the sum of the pseudo-header. The bytes from `start` on
/// are summed, and the field is `offset` bytes behind `start`. A packet that ends before is left as it is.
pub fn finish_partial(packet: &mut [u8], start: usize, offset: usize) {
    let Some(summed) = packet.get_mut(start..) else {
        return;
    };
    let finished = match Sum::default().add_bytes(summed).finish() {
        // A UDP checksum of 0 says that there is none (RFC 768); to others both are the same.
        [0, 0] => [0xff; 2],
        finished => finished,
    };
    if let Some(field) = summed.get_mut(offset..offset + 2) {
        field.copy_from_slice(&finished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_checksum_is_finished_as_the_sender_would_have() {
        for payload in [0, 1, 7, 1400] {
            let mut packet = Vec::new();
            etherparse::PacketBuilder::ipv4([10, 42, 0, 1], [10, 42, 0, 2], 64)
                .udp(40_000, 443)
                .write(&mut packet, &vec![7; payload])
                .unwrap();
            let mut partial = packet.clone();
            let len = (packet.len() - 20) as u16;
            let pseudo = Sum::default()
                .add_bytes(&packet[12..20])
                .add_bytes(&[0, 17])
                .add_bytes(&len.to_be_bytes());
            partial[26..28].copy_from_slice(&pseudo.fold());
            assert_ne!(partial, packet);

            finish_partial(&mut partial, 20, 6);

            assert_eq!(partial, packet);
        }
    }

    #[test]
    fn offsets_outside_the_packet_change_nothing() {
        for (start, offset) in [(5, 0), (0, 4), (0, 3), (4, 0), (0, usize::MAX - 2)] {
            let mut packet = [1; 4];
            finish_partial(&mut packet, start, offset);
            assert_eq!(packet, [1; 4]);
        }
    }
}
