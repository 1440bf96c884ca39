//! What every counter counts, as `docs/counters-and-maps.md` says it too.

use crate::control::CounterKind::{self, Drop, Event};

/// Name, kind and meaning of each counter.
#[rustfmt::skip]
const MEANINGS: &[(&str, CounterKind, &str)] = &[
    ("captured", Event, "packets given to a worker; a super-packet is one"),
    ("not_ip", Event, "packets left to the device or the gateway's host: neither IPv4 nor IPv6, or behind a third VLAN tag"),
    ("multicast", Event, "packets left to the device or the gateway's host: multicast or broadcast"),
    ("truncated", Drop, "packets refused: a header is cut short"),
    ("bad_header_length", Drop, "packets refused: a header length is impossible"),
    ("bad_total_length", Drop, "packets refused: the length in the IP header is not the packet's"),
    ("too_many_headers", Drop, "packets refused: more extension headers than the parser follows"),
    ("too_large", Event, "packets left to the device: longer than 65,535 bytes"),
    ("ring_full", Drop, "packets refused: the worker is behind; the sending TCP is told and sends again"),
    ("peer_pressure", Drop, "packets refused: the peer's queue is full; the sending TCP is told and sends again"),
    ("no_ring", Drop, "packets refused: the flow's worker has no ring"),
    ("copy_failed", Drop, "packets refused: the kernel did not copy them"),
    ("passed_malformed", Event, "packets left to the gateway's host: a header or length is wrong"),
    ("passed_not_ours", Event, "packets left to the gateway's host: for itself, another machine, or a network that no peer has"),
    ("passed_source", Event, "packets left to the gateway's host: the source address is a peer's, or none that can be forwarded"),
    ("passed_options", Event, "packets left to the gateway's host: IPv4 options, or IPv6 options for every hop"),
    ("passed_ttl", Event, "packets left to the gateway's host: their last hop; it tells the sender if it forwards"),
    ("passed_too_big", Event, "packets left to the gateway's host: longer than `device.mtu`; it tells the sender if it forwards"),
    ("socket_full", Drop, "captured packets that an AF_XDP socket had no room for: the worker is behind"),
    ("socket_no_memory", Drop, "captured packets that a receive queue had no memory for: its workers are behind"),
    ("socket_dropped", Drop, "captured packets that the kernel could not give to an AF_XDP socket for another reason"),
    ("tx_no_route", Drop, "packets whose destination no peer has; the sender gets ICMP unreachable"),
    ("tx_peer_down", Drop, "packets for a peer without a connection; the sender gets ICMP unreachable"),
    ("tx_queue_full", Drop, "packets beyond the hard limit of a peer's queue"),
    ("tx_aged", Drop, "packets dropped because their stream's queue had been longer than 5 ms for more than 100 ms (CoDel)"),
    ("tx_ecn_marked", Event, "packets marked instead, as their sender and receiver understand ECN"),
    ("tx_stream_lost", Drop, "packets queued or half written when their stream or connection was lost"),
    ("tx_not_captured", Drop, "packets the device got because the program left them to it"),
    ("rx_source_not_allowed", Drop, "packets from a peer whose source address is not in its `allowed_ips`"),
    ("rx_malformed_packet", Drop, "frames from a peer that do not hold one whole IP packet"),
    ("rx_bad_offload_header", Drop, "frames from a peer whose offload header does not fit their packet"),
    ("rx_device_refused", Drop, "packets the device would not take"),
    ("rx_protocol_error", Event, "streams reset because their bytes were not frames, or ended inside one"),
    ("icmp_unreachable_sent", Event, "ICMP errors given to senders on this host; at most 20 a second for each worker"),
    ("unknown_peers_refused", Event, "handshakes with an identity that is not in the configuration"),
    ("connections_refused", Event, "connections beyond what a peer may have"),
    ("handshakes_refused", Event, "connections beyond what may be in a handshake at once"),
    ("inbound_failures", Event, "inbound connections that failed before they were ready"),
    ("dial_failures", Event, "dials that failed"),
    ("streams_refused", Event, "streams beyond what a peer may have"),
    ("records_refused", Event, "records of the DHT that were neither believed nor kept: forged, expired, too large, or of a peer that is not configured"),
];

/// Kind and meaning of the counter called `name`.
pub(super) fn meaning(name: &str) -> Option<(CounterKind, &'static str)> {
    let known = MEANINGS.iter().find(|(known, ..)| *known == name);
    known.map(|(_, kind, meaning)| (*kind, *meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_the_same_of_every_counter() {
        let document = include_str!("../../../docs/counters-and-maps.md");
        for (name, _, meaning) in MEANINGS {
            assert!(
                document.contains(&format!("\n| `{name}` | {meaning} |\n")),
                "{name} is not in the table, or means something else there"
            );
        }
    }
}
