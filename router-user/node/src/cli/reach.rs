//! What the commands say of how a node and its peers reach each other.

use super::units::{bytes, called, plain_way, seconds, short_name};
use crate::control::{PeerStatus, ReachStatus, RelayStatus, ServedStatus};

/// Returns lines with their names: through which relays the node is reached, where it is seen, what peers are told of it.
pub(super) fn reach_lines(reach: &ReachStatus, verbose: bool) -> Vec<(&'static str, String)> {
    let relays = reach.relays.iter().map(|relay| ("relay", relay_line(relay)));
    let seen = reach.seen.iter().map(|seen| {
        let by = short_name(seen.peer_name.as_deref(), &seen.peer);
        ("seen at", format!("{}, as {by} says", plain_way(&seen.address)))
    });
    let serves = reach
        .serves
        .as_ref()
        .map(|served| ("relays", served_line(served)));
    let mut lines: Vec<_> = relays.chain(seen).chain(serves).collect();
    if verbose {
        let list = |all: &[String]| match all {
            [] => "nothing".to_owned(),
            all => all
                .iter()
                .map(|one| plain_way(one))
                .collect::<Vec<_>>()
                .join(", "),
        };
        lines.push(("told", format!("{}, for direct connections", list(&reach.told))));
        lines.push(("announced", format!("{}, in the DHT", list(&reach.announced))));
    }
    lines
}

/// Says what a node relays.
fn served_line(served: &ServedStatus) -> String {
    let ServedStatus {
        reservations,
        circuits,
        bytes: n_bytes,
    } = served;
    format!(
        "{reservations} places of peers, {circuits} circuits; {} so far",
        bytes(*n_bytes)
    )
}

/// Says whether a node is reached through a relay.
pub(super) fn relay_line(relay: &RelayStatus) -> String {
    let name = called(relay.peer_name.as_deref(), &relay.peer);
    match (relay.held, &relay.last_error) {
        (true, _) => format!("{name}: peers reach this node through it"),
        (false, Some(error)) => format!("{name}: gives no place: {error}"),
        (false, None) => format!("{name}: not asked yet, as it is not connected"),
    }
}

/// Returns a line for each way to a peer that was tried since it was last reached directly, and led nowhere.
pub(super) fn tried_lines(peer: &PeerStatus) -> Vec<String> {
    let ago = |age: Option<f64>| age.map_or_else(String::new, |age| format!(", {} ago", seconds(age)));
    let known = peer.addresses.iter().filter_map(|known| {
        let error = known.last_dial_error.as_ref()?;
        let when = ago(known.last_dial_error_age_seconds);
        Some(format!("{}{when}: {error}", plain_way(&known.address)))
    });
    let agreed = peer.direct_tries.iter().map(|tried| {
        let when = ago(peer.direct_tried_age_seconds);
        format!(
            "{}, both sides at once{when}: {}",
            plain_way(&tried.address),
            tried.error
        )
    });
    known.chain(agreed).collect()
}

/// Says why a peer is connected through a relay alone, if it is.
pub(super) fn why_relayed(peer: &PeerStatus) -> Option<String> {
    let because = peer.relayed_because.as_ref()?;
    let when = peer.direct_tried_age_seconds;
    let when = when.map_or_else(String::new, |age| format!(" ({} ago)", seconds(age)));
    Some(format!("relayed{when}: {because}"))
}

/// Makes a peer of which nothing is known.
#[cfg(test)]
pub(super) fn unreached() -> PeerStatus {
    serde_json::from_value(serde_json::json!({
        "id": "12D3KooWparis", "state": "connected", "address": null, "transport": null, "direction": null,
        "rtt_ms": null, "handshake_age_seconds": null, "connections": 1, "streams": 0, "allowed_ips": [],
        "rate_bytes_per_second": null, "tx_frames": 0, "tx_bytes": 0, "rx_frames": 0, "rx_bytes": 0,
        "last_dial_error": null, "refuses": false,
    }))
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{AddressOrigin, DirectTry, PeerAddress, SeenAddress};

    const RELAY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn relay(held: bool, error: Option<&str>) -> RelayStatus {
        RelayStatus {
            peer: RELAY.to_owned(),
            peer_name: Some("oslo".to_owned()),
            held,
            last_error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_node_says_through_whom_it_is_reached_and_where_it_is_seen() {
        let reach = ReachStatus {
            relays: vec![relay(true, None)],
            seen: vec![SeenAddress {
                address: "/ip4/198.51.100.1/udp/4001/quic-v1".to_owned(),
                peer: RELAY.to_owned(),
                peer_name: Some("oslo".to_owned()),
            }],
            told: vec!["/ip4/198.51.100.1/tcp/7".to_owned()],
            announced: Vec::new(),
            serves: Some(ServedStatus {
                reservations: 2,
                circuits: 1,
                bytes: 0,
            }),
        };

        let lines = reach_lines(&reach, true);

        assert_eq!(
            lines[0].1,
            format!("oslo ({RELAY}): peers reach this node through it")
        );
        assert_eq!(
            lines[1],
            ("seen at", "quic 198.51.100.1:4001, as oslo says".to_owned())
        );
        let served = format!("2 places of peers, 1 circuits; {} so far", bytes(0));
        assert_eq!(lines[2], ("relays", served));
        assert_eq!(lines[3].1, "tcp 198.51.100.1:7, for direct connections");
        assert_eq!(lines[4].1, "nothing, in the DHT");
        assert_eq!(reach_lines(&reach, false).len(), 3);
        assert!(reach_lines(&ReachStatus::default(), false).is_empty());
        assert!(relay_line(&relay(false, Some("no room"))).ends_with("gives no place: no room"));
        assert!(relay_line(&relay(false, None)).ends_with("not connected"));
    }

    #[test]
    fn every_way_that_was_tried_in_vain_is_a_line_with_its_error_and_age() {
        let mut peer = unreached();
        assert_eq!((tried_lines(&peer).len(), why_relayed(&peer)), (0, None));
        let address = |address: &str, error: Option<&str>| PeerAddress {
            address: address.to_owned(),
            origin: AddressOrigin::Configured,
            last_dial_error: error.map(str::to_owned),
            last_dial_error_age_seconds: error.map(|_| 75.0),
        };
        peer.addresses = vec![
            address("/ip4/192.168.1.2/tcp/4001", Some("no route to host")),
            address("/ip4/192.0.2.2/tcp/4001", None),
        ];
        peer.relayed_because = Some("nobody answered".to_owned());
        peer.direct_tried_age_seconds = Some(12.0);
        peer.direct_tries = vec![DirectTry {
            address: "/ip4/198.51.100.2/udp/9/quic-v1".to_owned(),
            error: "timed out".to_owned(),
        }];

        assert_eq!(
            tried_lines(&peer),
            [
                "tcp 192.168.1.2:4001, 1m 15s ago: no route to host",
                "quic 198.51.100.2:9, both sides at once, 12.0s ago: timed out",
            ]
        );
        assert_eq!(
            why_relayed(&peer).unwrap(),
            "relayed (12.0s ago): nobody answered"
        );
    }
}
