//! The flow hash: its numbers, and how it shares flows out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use router_common::flow_hash::{HashKey, flow_hash};
use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use router_common::slots::{slot, worker};

/// The key of the SipHash reference vectors: bytes 0 to 15.
const KEY: HashKey = HashKey {
    k0: 0x0706_0504_0302_0100,
    k1: 0x0f0e_0d0c_0b0a_0908,
};
const N_FLOWS: u32 = 100_000;
const LARGEST_SHARE: f64 = 1.15;

/// The numbers come from another implementation of SipHash-1-3, which agrees with the one in CPython.
#[test]
fn hash_is_siphash_1_3_of_the_key_bytes() {
    let golden = [
        ("10.0.0.1", 40000, "10.0.0.2", 443, TCP, 0x0094_abab),
        ("10.0.0.2", 443, "10.0.0.1", 40000, TCP, 0x64cd_69ca),
        ("10.0.0.1", 40000, "10.0.0.2", 443, UDP, 0xfa60_a696),
        ("10.0.0.1", 40001, "10.0.0.2", 443, TCP, 0x50e1_abdd),
        ("192.0.2.7", 0, "198.51.100.9", 0, ICMP, 0x0e07_9bec),
        ("2001:db8::1", 53, "2001:db8::2", 53, UDP, 0x3ed0_290a),
        ("2001:db8::1", 5060, "2001:db8:0:1::2", 5060, SCTP, 0x20c9_d507),
        ("fd00::1", 77, "fd00::2", 0, ICMPV6, 0xf1ee_3728),
        ("0.0.0.0", 0, "255.255.255.255", 65535, 255, 0xec84_6b3a),
    ];

    for (source, source_port, destination, destination_port, protocol, hash) in golden {
        let key = flow(
            (source.parse().unwrap(), source_port),
            (destination.parse().unwrap(), destination_port),
            protocol,
        );
        assert_eq!(flow_hash(&KEY, &key), hash, "{source} to {destination}");
        assert_eq!(flow_hash(&KEY, &key), hash, "again");
    }
}

#[test]
fn each_bit_of_the_secret_changes_the_hash() {
    let key = flow(host(1), host(2), TCP);
    let hash = flow_hash(&KEY, &key);

    for bit in 0..64 {
        let (k0, k1) = (KEY.k0 ^ 1 << bit, KEY.k1 ^ 1 << bit);
        assert_ne!(flow_hash(&HashKey { k0, ..KEY }, &key), hash, "bit {bit} of k0");
        assert_ne!(flow_hash(&HashKey { k1, ..KEY }, &key), hash, "bit {bit} of k1");
    }
}

#[test]
fn flows_with_sequential_ports_spread_over_all_workers() {
    assert_shares("ports", |n| {
        let (low, high) = ((n % 50_000) as u16, (n / 50_000) as u16);
        flow((host(1).0, 10_000 + low), (host(2).0, 443 + high), TCP)
    });
}

#[test]
fn flows_with_sequential_ipv4_addresses_spread_over_all_workers() {
    assert_shares("IPv4 addresses", |n| {
        flow((Ipv4Addr::from_bits(0x0a00_0001 + n).into(), 0), host(2), ICMP)
    });
}

#[test]
fn flows_with_sequential_ipv6_addresses_spread_over_all_workers() {
    let first = 0xfd00_0000_0000_0000_0000_0000_0000_0001;
    assert_shares("IPv6 addresses", |n| {
        flow(
            (Ipv6Addr::from_bits(first + u128::from(n)).into(), 443),
            (Ipv6Addr::from_bits(first << 16).into(), 443),
            UDP,
        )
    });
}

#[test]
fn flows_between_two_subnets_spread_over_all_workers() {
    assert_shares("one pair of subnets", |n| {
        let [high, left, right] = [n >> 16, n >> 8 & 0xff, n & 0xff];
        flow(
            (Ipv4Addr::from_bits(0x0a01_0000 + left).into(), 5000 + high as u16),
            (Ipv4Addr::from_bits(0x0a02_0000 + right).into(), 5000),
            UDP,
        )
    });
}

#[test]
fn every_slot_has_a_worker_below_the_number_of_workers() {
    for n_workers in [1, 3, 32] {
        let workers = (0..=1023).map(|slot| worker(slot, n_workers));
        assert_eq!(workers.max(), Some(n_workers - 1));
    }
}

fn assert_shares(what: &str, key: impl Fn(u32) -> FlowKey) {
    for n_workers in [4, 8, 32] {
        let mut shares = vec![0; n_workers as usize];
        for n in 0..N_FLOWS {
            shares[worker(slot(flow_hash(&KEY, &key(n))), n_workers) as usize] += 1;
        }
        let fair = f64::from(N_FLOWS) / f64::from(n_workers);
        for share in shares {
            let ratio = f64::from(share) / fair;
            assert!(
                (2.0 - LARGEST_SHARE..=LARGEST_SHARE).contains(&ratio),
                "{what}, {n_workers} workers: one has {ratio:.3} times its share"
            );
        }
    }
}

fn flow(source: (IpAddr, u16), destination: (IpAddr, u16), protocol: u8) -> FlowKey {
    let octets = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    FlowKey {
        source: octets(source.0),
        destination: octets(destination.0),
        source_port_be: source.1.to_be_bytes(),
        destination_port_be: destination.1.to_be_bytes(),
        protocol,
        family: if source.0.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 },
        padding: [0; 2],
    }
}

fn host(n: u8) -> (IpAddr, u16) {
    (Ipv4Addr::new(10, 0, 0, n).into(), 7)
}
