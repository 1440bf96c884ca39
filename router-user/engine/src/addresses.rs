//! The addresses of an IP packet, read without parsing the rest of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns source and destination, or `None` if `packet` is of neither IP version or too short for its version.
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = *packet.get(12..)?.first_chunk()?;
            let destination: [u8; 4] = *packet.get(16..)?.first_chunk()?;
            Some((Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into()))
        }
        6 => {
            let source: [u8; 16] = *packet.get(8..)?.first_chunk()?;
            let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            Some((Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn reads_both_families_and_nothing_shorter() {
        let mut v4 = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut v4, &[])
            .unwrap();
        let mut v6 = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut v6, &[])
            .unwrap();
        assert_eq!(addresses(&v4), Some(([10, 0, 0, 1].into(), [10, 0, 0, 2].into())));
        assert_eq!(addresses(&v6), Some(([1u8; 16].into(), [2u8; 16].into())));
        assert_eq!(
            (addresses(&v4[..19]), addresses(&v6[..39]), addresses(&[])),
            (None, None, None)
        );
        assert_eq!(addresses(&[0x50; 40]), None);
    }
}
