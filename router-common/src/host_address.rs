//! Which addresses are those of one host, for everything that decides about packets by it.

/// Returns whether an IPv4 address is that of a group: multicast (RFC 5771) or broadcast.
#[inline(always)]
pub fn is_group_v4(address: [u8; 4]) -> bool {
    address[0] & 0xf0 == 0xe0 || address == [0xff; 4]
}

/// Returns whether an IPv4 address can be that of one host, seen from elsewhere. 240.0.0.0/4 can, as on Linux, although
/// RFC 1112 reserves it.
#[inline(always)]
pub fn is_host_v4(address: [u8; 4]) -> bool {
    !(matches!(address[0], 0 | 127) || is_group_v4(address))
}

/// Returns whether an IPv6 address is that of a group (RFC 4291).
#[inline(always)]
pub fn is_group_v6(address: &[u8; 16]) -> bool {
    address[0] == 0xff
}

/// Returns whether an IPv6 address can be that of one host, seen from elsewhere. ::/96 holds the unspecified and the
/// loopback address; the rest of it is out of use since RFC 4291.
#[inline(always)]
pub fn is_host_v6(address: &[u8; 16]) -> bool {
    !(is_group_v6(address) || address[..12] == [0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_hosts_of_ipv4() {
        for (address, group, host) in [
            ([10, 0, 0, 1], false, true),
            ([223, 255, 255, 255], false, true),
            ([224, 0, 0, 1], true, false),
            ([239, 255, 255, 255], true, false),
            ([240, 0, 0, 1], false, true),
            ([255, 255, 255, 254], false, true),
            ([255, 255, 255, 255], true, false),
            ([0, 1, 2, 3], false, false),
            ([127, 0, 0, 1], false, false),
        ] {
            assert_eq!(
                (is_group_v4(address), is_host_v4(address)),
                (group, host),
                "{address:?}"
            );
        }
    }

    #[test]
    fn groups_and_hosts_of_ipv6() {
        for (address, group, host) in [
            ("fd42::1", false, true),
            ("fe80::1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("ff02::1", true, false),
            ("::", false, false),
            ("::1", false, false),
            ("::10.0.0.1", false, false),
        ] {
            let bytes = address.parse::<core::net::Ipv6Addr>().unwrap().octets();
            assert_eq!(
                (is_group_v6(&bytes), is_host_v6(&bytes)),
                (group, host),
                "{address}"
            );
        }
    }
}
