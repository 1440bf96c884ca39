//! The segment size that a TCP packet offers, against an independent implementation of the checksum.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

use etherparse::{PacketBuilder, TcpHeaderSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use router_common::packet::mss::clamp;
use router_common::packet::{Parsed, parse};

const MTU: u32 = 1420;
/// Most that fits, of IPv4 and of IPv6.
const MOST: [u16; 2] = [1380, 1360];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_larger_offer_becomes_what_fits_with_its_checksum_right(
        is_v6 in any::<bool>(),
        n_before in 0..30_usize,
        offer in any::<u16>(),
        answers in any::<bool>(),
        ports in any::<[u16; 2]>(),
    ) {
        let mut options = vec![1; n_before];
        options.extend([2, 4]);
        options.extend(offer.to_be_bytes());
        let packet = syn(is_v6, answers, ports, &options);
        let most = MOST[usize::from(is_v6)];

        let clamped = clamped(&packet, MTU, false);

        if offer <= most {
            prop_assert_eq!(clamped, None);
        } else {
            let mut smaller = options.clone();
            smaller[n_before + 2..].copy_from_slice(&most.to_be_bytes());
            prop_assert_eq!(clamped, Some(syn(is_v6, answers, ports, &smaller)));
        }
    }

    #[test]
    fn options_of_any_bytes_are_safe_and_only_an_offer_is_changed(options in vec(any::<u8>(), 0..=40)) {
        let packet = syn(false, false, [1, 2], &options);

        if let Some(changed) = clamped(&packet, MTU, true) {
            let differ: Vec<usize> = (0..packet.len()).filter(|at| packet[*at] != changed[*at]).collect();
            prop_assert!(differ.len() <= 2 && differ.iter().all(|at| *at >= 40), "{:?}", differ);
            prop_assert_eq!(packet.len(), changed.len());
        }
    }
}

#[test]
fn an_open_checksum_stays_as_it_is() {
    let packet = syn(false, false, [1, 2], &[2, 4, 0x05, 0xb4]);

    let clamped = clamped(&packet, MTU, true).unwrap();

    assert_eq!(clamped[36..38], packet[36..38]);
    assert_eq!(clamped[42..44], 1380_u16.to_be_bytes());
}

#[test]
fn packets_that_open_no_connection_are_left() {
    let mut packet = syn(false, false, [1, 2], &[2, 4, 0x05, 0xb4]);
    packet[33] = 0x10;

    assert_eq!(clamped(&packet, MTU, false), None);
}

#[test]
fn options_that_make_no_sense_are_left() {
    for options in [
        &[2, 4, 0x05][..],
        &[2, 3, 0x05, 0xb4],
        &[2, 6, 0x05, 0xb4, 0, 0, 0, 0],
        &[3, 0, 2, 4, 0x05, 0xb4, 0, 0],
        &[3, 1, 2, 4, 0x05, 0xb4, 0, 0],
        &[3, 200, 2, 4, 0x05, 0xb4, 0, 0],
        &[0, 2, 4, 0x05, 0xb4, 0, 0, 0],
        &[1, 1, 1, 2],
        &[],
    ] {
        let packet = syn(false, false, [1, 2], options);
        assert_eq!(clamped(&packet, MTU, false), None, "{options:?}");
    }
}

#[test]
fn an_mtu_without_room_for_the_headers_changes_nothing() {
    let packet = syn(true, false, [1, 2], &[2, 4, 0x05, 0xb4]);

    assert_eq!(clamped(&packet, 59, false), None);
}

/// Returns the packet as it becomes, if it does.
fn clamped(packet: &[u8], mtu: u32, is_open: bool) -> Option<Vec<u8>> {
    let parsed: Parsed = parse(packet, packet.len() as u32).unwrap();
    let clamp = clamp(packet, &parsed, mtu, is_open)?;
    let mut packet = packet.to_vec();
    packet[clamp.size_offset as usize..][..2].copy_from_slice(&clamp.size);
    packet[clamp.checksum_offset as usize..][..2].copy_from_slice(&clamp.checksum);
    Some(packet)
}

/// A packet that opens a connection, or answers one that does, with these options, padded with the end of options.
fn syn(is_v6: bool, answers: bool, [source, destination]: [u16; 2], options: &[u8]) -> Vec<u8> {
    let builder = if is_v6 {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut builder = builder.tcp(source, destination, 7, 1000).syn();
    if answers {
        builder = builder.ack(9);
    }
    let builder = builder.options_raw(options).unwrap();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[]).unwrap();
    let tcp = TcpHeaderSlice::from_slice(&packet[if is_v6 { 40 } else { 20 }..]).unwrap();
    assert!(tcp.syn());
    packet
}
