//! Explicit congestion notification (RFC 3168): packets that met congestion are marked instead of dropped.

const ECT_MASK: u8 = 0b11;
const CONGESTION_EXPERIENCED: u8 = 0b11;

/// Sets "congestion experienced" in `packet` if its sender and receiver understand that, and says whether they do.
///
/// `packet` starts with its IP header. The IPv4 header's checksum stays as right as it was.
pub(crate) fn mark(packet: &mut [u8]) -> bool {
    match packet {
        [first, tos, rest @ ..] if *first >> 4 == 4 && rest.len() >= 18 => {
            if *tos & ECT_MASK == 0 {
                return false;
            }
            let before = u16::from_be_bytes([*first, *tos]);
            *tos |= CONGESTION_EXPERIENCED;
            let after = u16::from_be_bytes([*first, *tos]);
            let checksum = u16::from_be_bytes([rest[8], rest[9]]);
            [rest[8], rest[9]] = updated(checksum, before, after).to_be_bytes();
            true
        }
        [first, second, ..] if *first >> 4 == 6 => {
            let capable = *second >> 4 & ECT_MASK != 0;
            if capable {
                *second |= CONGESTION_EXPERIENCED << 4;
            }
            capable
        }
        _ => false,
    }
}

/// Returns the checksum after one of the words that it covers has changed (RFC 1624, equation 3).
fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv4HeaderSlice, Ipv6FlowLabel, Ipv6Header};
    use proptest::prelude::*;

    use super::*;

    fn v4(tos: u8, ttl: u8, source: [u8; 4]) -> Vec<u8> {
        let mut header = Ipv4Header::new(0, ttl, 17.into(), source, [10, 0, 0, 2]).expect("short");
        header.dscp = (tos >> 2).try_into().expect("6 bits");
        header.ecn = (tos & 3).try_into().expect("2 bits");
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = Vec::new();
        header.write(&mut bytes).expect("a vector takes all");
        bytes
    }

    proptest! {
        #[test]
        fn ipv4_is_marked_when_capable_and_its_checksum_stays_right(tos: u8, ttl: u8, source: [u8; 4]) {
            let mut packet = v4(tos, ttl, source);

            let marked = mark(&mut packet);

            prop_assert_eq!(marked, tos & 3 != 0);
            let expected = if marked { v4(tos | 3, ttl, source) } else { v4(tos, ttl, source) };
            prop_assert_eq!(&packet, &expected);
            prop_assert!(Ipv4HeaderSlice::from_slice(&packet).is_ok());
        }

        #[test]
        fn ipv6_is_marked_when_capable(class: u8, label in 0..0x10_0000_u32) {
            let header = |class| {
                let header = Ipv6Header {
                    traffic_class: class,
                    flow_label: Ipv6FlowLabel::try_new(label).expect("20 bits"),
                    ..Ipv6Header::default()
                };
                header.to_bytes().to_vec()
            };
            let mut packet = header(class);

            let marked = mark(&mut packet);

            prop_assert_eq!(marked, class & 3 != 0);
            prop_assert_eq!(packet, header(if marked { class | 3 } else { class }));
        }
    }

    #[test]
    fn what_is_no_packet_is_left_alone() {
        for mut bytes in [vec![], vec![0x45], vec![0x45; 19], vec![0x60], vec![0xff; 40]] {
            let before = bytes.clone();
            assert!(!mark(&mut bytes));
            assert_eq!(bytes, before);
        }
    }
}
