//! `stream-router peers`

use std::cmp::Ordering;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::outcome::{Outcome, print};
use super::rates::bit_rate;
use super::reach::{tried_lines, why_relayed};
use super::request::{ShowArguments, or_dash, wait};
use super::table::TextTable;
use super::units::{bytes, called, plain_address, plain_way, seconds, short_name};
use crate::control::{
    AddressOrigin, Callable as _, Direction, DisabledPeer, LEAST_END, NotFound, PeerAddress, PeerLink,
    PeerList, PeerState, PeerStatus, fetch, find,
};

/// Which peers are shown, and how.
#[derive(Debug, Args)]
pub(super) struct PeerArguments {
    #[command(flatten)]
    show: ShowArguments,
    /// Only these peers: by name, inner address, id or an end of it; one alone is shown with all that is known of it
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Only peers in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<StateChoice>,
    /// Order, largest first for numbers; that of the configuration unless it is said
    #[arg(long, value_enum, value_name = "BY")]
    sort: Option<PeerSort>,
    /// Show more columns: ids, handshakes, connections, streams, traffic in all, every network, comments
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateChoice {
    Connected,
    Connecting,
    Disconnected,
    Idle,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerSort {
    Name,
    Address,
    State,
    Rtt,
    Sent,
    Received,
}

/// A peer is called as no peer, or as several.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownPeer {
    #[error("no peer is called {0}; `stream-router peers` lists them")]
    Nobody(String),
    #[error(
        "no peer has the name {0}, and an end of an id takes {LEAST_END} characters or more; `stream-router peers` lists them"
    )]
    Short(String),
    #[error("the ids of several peers end with {0}; give more of it")]
    Several(String),
}

/// Shows the peers of a node.
pub(super) fn peers(arguments: &PeerArguments) -> Outcome {
    let socket = &arguments.show.request.which.socket()?;
    let chosen = || -> Result<PeerList, Box<dyn std::error::Error>> {
        let list = wait(fetch::<PeerList>(socket, ""))?;
        Ok(arguments.chosen(list)?)
    };
    if arguments.show.request.json {
        if arguments.is_everything() {
            return arguments.show.show::<PeerList>("", |_| String::new());
        }
        return print(serde_json::to_string_pretty(&chosen()?)?);
    }
    arguments.show.repeat(|| Ok(arguments.text(&chosen()?)))
}

impl PeerArguments {
    fn is_everything(&self) -> bool {
        self.peers.is_empty() && self.state.is_none() && self.sort.is_none()
    }

    fn chosen(&self, list: PeerList) -> Result<PeerList, UnknownPeer> {
        let mut chosen = match &self.peers[..] {
            [] => list,
            some => these(&list, some)?,
        };
        if let Some(state) = self.state {
            chosen.peers.retain(|peer| state.is(peer.state));
            chosen.disabled.retain(|_| state.is(PeerState::Disabled));
        }
        if let Some(sort) = self.sort {
            chosen.peers.sort_by(|a, b| sort.order(a, b));
        }
        Ok(chosen)
    }

    fn text(&self, list: &PeerList) -> String {
        match &rows(list)[..] {
            [] if self.state.is_some() => "no peer is in this state".to_owned(),
            [] => "no peers are configured".to_owned(),
            [peer] if self.peers.len() == 1 => paragraph(peer),
            peers => table(peers, self.verbose),
        }
    }
}

impl StateChoice {
    fn is(self, state: PeerState) -> bool {
        let wanted = match self {
            Self::Connected => PeerState::Connected,
            Self::Connecting => PeerState::Connecting,
            Self::Disconnected => PeerState::Disconnected,
            Self::Idle => PeerState::Idle,
            Self::Disabled => PeerState::Disabled,
        };
        state == wanted
    }
}

impl PeerSort {
    fn order(self, a: &PeerStatus, b: &PeerStatus) -> Ordering {
        let largest = |value: fn(&PeerStatus) -> Option<f64>| {
            // What is not known comes last.
            let [a, b] = [a, b].map(|peer| value(peer).unwrap_or(f64::NEG_INFINITY));
            b.total_cmp(&a)
        };
        match self {
            Self::Name => {
                // Those without a name come last.
                let key = |peer: &PeerStatus| {
                    let name = peer.name.as_deref().map(str::to_ascii_lowercase);
                    (name.is_none(), name, peer.id.clone())
                };
                key(a).cmp(&key(b))
            }
            Self::Address => inner_address(a).cmp(&inner_address(b)),
            Self::State => a.state.cmp(&b.state),
            Self::Rtt => largest(|peer| peer.rtt_ms),
            Self::Sent => largest(|peer| peer.tx_bytes_per_second),
            Self::Received => largest(|peer| peer.rx_bytes_per_second),
        }
    }
}

/// Returns the peer that is called so.
fn named<'a>(peers: &'a [PeerStatus], called: &str) -> Result<&'a PeerStatus, UnknownPeer> {
    find(peers.iter(), called).map_err(|error| match error {
        NotFound::Address | NotFound::Nobody => UnknownPeer::Nobody(called.to_owned()),
        NotFound::Short => UnknownPeer::Short(called.to_owned()),
        NotFound::Several => UnknownPeer::Several(called.to_owned()),
    })
}

/// Returns the peers that are called so.
fn these(list: &PeerList, called: &[String]) -> Result<PeerList, UnknownPeer> {
    let disabled: Vec<_> = list.disabled.iter().map(disabled_row).collect();
    let mut chosen = PeerList::default();
    for called in called {
        match named(&list.peers, called) {
            Ok(peer) => chosen.peers.push(peer.clone()),
            // The networks of one that is disabled may be another's meanwhile, who goes before it.
            Err(UnknownPeer::Nobody(_) | UnknownPeer::Short(_)) => {
                let meant = &named(&disabled, called)?.id;
                let one = list.disabled.iter().filter(|peer| peer.id == *meant);
                chosen.disabled.extend(one.cloned());
            }
            Err(several) => return Err(several),
        }
    }
    Ok(chosen)
}

/// Returns what is shown: the peers, then those that are disabled.
pub(super) fn rows(list: &PeerList) -> Vec<PeerStatus> {
    let disabled = list.disabled.iter().map(disabled_row);
    list.peers.iter().cloned().chain(disabled).collect()
}

fn disabled_row(peer: &DisabledPeer) -> PeerStatus {
    let address = |address: &String| PeerAddress {
        address: address.clone(),
        origin: AddressOrigin::Configured,
        last_dial_error: None,
        last_dial_error_age_seconds: None,
    };
    PeerStatus {
        id: peer.id.clone(),
        name: peer.name.clone(),
        comment: peer.comment.clone(),
        state: PeerState::Disabled,
        address: None,
        transport: None,
        path: None,
        direction: None,
        rtt_ms: None,
        handshake_age_seconds: None,
        connections: 0,
        links: Vec::new(),
        streams: 0,
        allowed_ips: peer.allowed_ips.clone(),
        rate_bytes_per_second: None,
        tx_frames: 0,
        tx_bytes: 0,
        rx_frames: 0,
        rx_bytes: 0,
        tx_bytes_per_second: None,
        rx_bytes_per_second: None,
        addresses: peer.addresses.iter().map(address).collect(),
        last_dial_error: None,
        refuses: false,
        relayed_because: None,
        direct_tries: Vec::new(),
        direct_tried_age_seconds: None,
    }
}

/// Returns the address of the peer inside the VPN: its first network of one address, or else its first network.
fn inner_address(peer: &PeerStatus) -> Option<IpNet> {
    let is_host = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    peer.networks().find(is_host).or_else(|| peer.networks().next())
}

fn inner_address_text(peer: &PeerStatus) -> String {
    or_dash(inner_address(peer).map(|net| {
        if net.prefix_len() == net.max_prefix_len() {
            net.addr().to_string()
        } else {
            net.to_string()
        }
    }))
}

/// Returns a row for each peer, with more columns if it may be wide.
pub(super) fn table(peers: &[PeerStatus], wide: bool) -> String {
    let mean = |rate: Option<f64>| or_dash(rate.map(|rate| bit_rate(8.0 * rate)));
    let mut table = TextTable::new(peers)
        .left("peer", |peer| short_name(peer.name.as_deref(), &peer.id))
        .left("vpn address", inner_address_text)
        .left("state", |peer| peer.state)
        .left("path", |peer| or_dash(path(peer)))
        .right("rtt", |peer| {
            or_dash(peer.rtt_ms.map(|rtt| format!("{rtt:.2} ms")))
        })
        .right("sent", |peer| mean(peer.tx_bytes_per_second))
        .right("received", |peer| mean(peer.rx_bytes_per_second));
    if wide {
        table = table
            .right("handshake", |peer| or_dash(handshake(peer)))
            .right("connections", |peer| peer.connections)
            .right("streams", |peer| peer.streams)
            .left("uplinks", uplinks)
            .right("sent in all", |peer| bytes(peer.tx_bytes))
            .right("received in all", |peer| bytes(peer.rx_bytes))
            .left("id", |peer| &peer.id)
            .left("allowed", |peer| peer.allowed_ips.join(", "))
            .left("comment", |peer| peer.comment.as_deref().unwrap_or("-"));
    }
    let relayed = |peer: &PeerStatus| why_relayed(peer).filter(|_| wide);
    table
        .left("why", |peer| {
            why(peer).or_else(|| relayed(peer)).unwrap_or_default()
        })
        .text()
}

/// Returns where a connected peer is, and who dialled.
pub(super) fn path(peer: &PeerStatus) -> Option<String> {
    let (address, transport, direction) = (peer.address.as_ref()?, peer.transport?, peer.direction?);
    let way = match direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    };
    Some(format!("{transport} {way} {}", plain_address(address)))
}

/// Returns where a peer may be dialled, and who says so unless it is the configuration.
pub(super) fn known_address(known: &PeerAddress) -> String {
    let address = plain_way(&known.address);
    match known.origin {
        AddressOrigin::Configured => address,
        AddressOrigin::Mdns => format!("{address} (mdns)"),
        AddressOrigin::Dht => format!("{address} (dht)"),
        AddressOrigin::Relay => format!("{address} (relay)"),
    }
}

/// Returns the uplinks of the connections, with their round trips and what is lost.
fn uplinks(peer: &PeerStatus) -> String {
    let of_uplinks = peer.links.iter().filter_map(|link| {
        let uplink = link.uplink.as_ref()?;
        Some(match (link.leaving, link.rtt_ms) {
            _ if !link.answers => format!("{uplink} silent"),
            (true, _) => format!("{uplink} left"),
            (false, Some(rtt)) => format!("{uplink} {rtt:.2} ms{}", lost(link, " ")),
            (false, None) => uplink.clone(),
        })
    });
    let uplinks: Vec<_> = of_uplinks.collect();
    if uplinks.is_empty() {
        "-".to_owned()
    } else {
        uplinks.join(", ")
    }
}

/// Returns which share of what was sent on a connection was lost, if that is known, after `before`.
fn lost(link: &PeerLink, before: &str) -> String {
    link.loss
        .map_or_else(String::new, |loss| format!("{before}{:.1} % lost", loss * 100.0))
}

/// Returns a line for each connection of a peer that has several, or one by an uplink.
fn links(peer: &PeerStatus) -> Vec<String> {
    let is_plain = |link: &PeerLink| link.uplink.is_none();
    if peer.links.len() < 2 && peer.links.iter().all(is_plain) {
        return Vec::new();
    }
    let line = |link: &PeerLink| {
        let way = match link.direction {
            Direction::Inbound => "from",
            Direction::Outbound => "to",
        };
        let mut line = format!("{} {way} {}", link.transport, plain_address(&link.address));
        if let Some(uplink) = &link.uplink {
            line += &format!(" by {uplink}{}", if link.metered { " (metered)" } else { "" });
        }
        if let Some(rtt) = link.rtt_ms {
            line += &format!(", {rtt:.2} ms");
        }
        line += &lost(link, ", ");
        line += &format!(", {} old", seconds(link.age_seconds));
        if !link.answers {
            line += ", does not answer";
        }
        if link.leaving {
            line += ", is being left";
        }
        line
    };
    peer.links.iter().map(line).collect()
}

/// Returns how long ago the last handshake was.
pub(super) fn handshake(peer: &PeerStatus) -> Option<String> {
    let age = peer.handshake_age_seconds?;
    Some(format!("{} ago", seconds(age)))
}

/// Returns why the peer is not connected, if it is not.
pub(super) fn why(peer: &PeerStatus) -> Option<String> {
    match (peer.state, &peer.last_dial_error) {
        (PeerState::Connected, _) => None,
        (PeerState::Disabled, _) => Some("peer.enabled is false".to_owned()),
        (_, Some(error)) => Some(error.clone()),
        (PeerState::Connecting, None) => Some("the first attempt is under way".to_owned()),
        (PeerState::Disconnected, None) => Some("waits for the peer to dial".to_owned()),
        (PeerState::Idle, None) => Some("dialled when there is something to send".to_owned()),
    }
}

fn paragraph(peer: &PeerStatus) -> String {
    let mut lines = vec![("state", peer.state.to_string())];
    if let (Some(address), Some(transport), Some(direction)) = (&peer.address, peer.transport, peer.direction)
    {
        lines.push(("address", format!("{address} ({transport}, {direction})")));
        lines.push(("rtt", or_dash(peer.rtt_ms.map(|rtt| format!("{rtt:.2} ms")))));
        lines.push(("handshake", or_dash(handshake(peer))));
        lines.extend(links(peer).into_iter().map(|link| ("by", link)));
    }
    lines.extend(why(peer).or_else(|| why_relayed(peer)).map(|why| ("why", why)));
    lines.extend(tried_lines(peer).into_iter().map(|tried| ("tried", tried)));
    lines.extend(peer.comment.iter().map(|comment| ("comment", comment.clone())));
    lines.push(("allowed", peer.allowed_ips.join(", ")));
    if let Some(rate) = peer.rate_bytes_per_second {
        lines.push(("rate", format!("at most {}/s to the peer", bytes(rate.into()))));
    }
    let traffic = |frames: u64, n_bytes: u64, mean: Option<f64>| {
        let mean = mean.map(|mean| format!(", {} in the last minute", bit_rate(8.0 * mean)));
        format!("{frames} frames, {}{}", bytes(n_bytes), mean.unwrap_or_default())
    };
    let has_traffic = peer.state != PeerState::Disabled;
    let traffic = has_traffic.then(|| {
        [
            (
                "streams",
                format!("{}, on {} connections", peer.streams, peer.connections),
            ),
            (
                "sent",
                traffic(peer.tx_frames, peer.tx_bytes, peer.tx_bytes_per_second),
            ),
            (
                "received",
                traffic(peer.rx_frames, peer.rx_bytes, peer.rx_bytes_per_second),
            ),
        ]
    });
    lines.extend(traffic.into_iter().flatten());
    let lines = lines
        .into_iter()
        .map(|(name, value)| format!("\n  {name:<10}{value}"));
    let called = called(peer.name.as_deref(), &peer.id);
    format!("peer {called}{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Transport;

    fn peer(id: &str, name: Option<&str>, allowed_ips: &[&str]) -> PeerStatus {
        PeerStatus {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            comment: None,
            state: PeerState::Connected,
            address: Some(
                "/ip4/192.0.2.2/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".to_owned(),
            ),
            transport: Some(Transport::Tcp),
            path: None,
            direction: Some(Direction::Outbound),
            rtt_ms: Some(0.25),
            handshake_age_seconds: Some(7.0),
            connections: 1,
            links: Vec::new(),
            streams: 2,
            allowed_ips: allowed_ips.iter().map(|net| (*net).to_owned()).collect(),
            rate_bytes_per_second: None,
            tx_frames: 3,
            tx_bytes: 2048,
            rx_frames: 4,
            rx_bytes: 4096,
            tx_bytes_per_second: Some(1_250_000.0),
            rx_bytes_per_second: None,
            addresses: Vec::new(),
            last_dial_error: None,
            refuses: false,
            relayed_because: None,
            direct_tries: Vec::new(),
            direct_tried_age_seconds: None,
        }
    }

    fn absent(id: &str, state: PeerState, error: Option<&str>) -> PeerStatus {
        PeerStatus {
            state,
            address: None,
            transport: None,
            direction: None,
            rtt_ms: None,
            handshake_age_seconds: None,
            last_dial_error: error.map(str::to_owned),
            tx_bytes_per_second: Some(0.0),
            ..peer(id, None, &["fd42::3/128"])
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_peer_and_says_why_one_is_not_there() {
        let peers = [
            peer(
                "12D3KooWabcdefgh",
                Some("paris"),
                &["192.168.7.0/24", "10.42.0.2/32"],
            ),
            absent(
                "12D3KooW12345678",
                PeerState::Connecting,
                Some("connection refused"),
            ),
        ];

        assert_eq!(
            table(&peers, false),
            "PEER      VPN ADDRESS  STATE       PATH                       RTT         SENT  RECEIVED  WHY\n\
             paris     10.42.0.2    connected   tcp to 192.0.2.2:4001  0.25 ms  10.0 Mbit/s         -\n\
             12345678  fd42::3      connecting  -                            -      0 bit/s         -  connection refused\n"
        );
        let wide = table(&peers, true);
        assert!(
            wide.contains("12D3KooWabcdefgh") && wide.contains("192.168.7.0/24, 10.42.0.2/32"),
            "{wide}"
        );
    }

    #[test]
    fn a_peer_is_found_as_the_node_finds_it() {
        let peers = [
            peer("12D3KooWaabbaa", Some("Paris"), &["10.42.0.0/16"]),
            peer("12D3KooWccbbaa", None, &["10.42.7.0/24", "fd42::7/128"]),
        ];
        let found = |called: &str| named(&peers, called).map(|peer| peer.id.as_str());

        assert_eq!(found("paris").unwrap(), "12D3KooWaabbaa");
        assert_eq!(found("10.42.7.1").unwrap(), "12D3KooWccbbaa");
        assert_eq!(found("10.42.8.1").unwrap(), "12D3KooWaabbaa");
        assert_eq!(found("fd42::7").unwrap(), "12D3KooWccbbaa");
        assert_eq!(found("cbbaa").unwrap(), "12D3KooWccbbaa");
        assert!(matches!(found("bbaa"), Err(UnknownPeer::Several(_))));
        assert!(matches!(found("aa"), Err(UnknownPeer::Short(_))));
        assert!(matches!(found("10.43.0.1"), Err(UnknownPeer::Nobody(_))));
        assert!(matches!(found("rome"), Err(UnknownPeer::Nobody(_))));
    }

    #[test]
    fn a_disabled_peer_is_a_row_at_the_end_and_found_behind_the_others() {
        let asleep = DisabledPeer {
            id: "12D3KooWrome".to_owned(),
            name: Some("Rom".to_owned()),
            comment: Some("at the workshop".to_owned()),
            allowed_ips: vec!["10.42.0.2/32".to_owned(), "10.42.0.3/32".to_owned()],
            addresses: vec!["/ip4/192.0.2.3/tcp/4001".to_owned()],
        };
        let list = PeerList {
            peers: vec![peer("12D3KooWparis", Some("paris"), &["10.42.0.2/32"])],
            disabled: vec![asleep],
        };
        let ids = |list: &PeerList| {
            let rows = rows(list).into_iter();
            rows.map(|peer| peer.id.split_at(8).1.to_owned())
                .collect::<Vec<_>>()
        };
        let called = |called: &str| these(&list, &[called.to_owned()]).map(|list| ids(&list));

        assert_eq!(ids(&list), ["paris", "rome"]);
        assert_eq!(called("rom").unwrap(), ["rome"]);
        assert_eq!(called("10.42.0.2").unwrap(), ["paris"]);
        assert_eq!(called("10.42.0.3").unwrap(), ["rome"]);
        assert!(matches!(called("berlin"), Err(UnknownPeer::Nobody(_))));
        let wide = table(&rows(&list), true);
        let last = wide.lines().last().unwrap();
        for told in ["disabled", "at the workshop", "peer.enabled is false"] {
            assert!(last.contains(told), "{told}: {wide}");
        }
        let alone = paragraph(&rows(&list)[1]);
        assert!(alone.contains("\n  comment   at the workshop\n"), "{alone}");
        assert!(!alone.contains("sent"), "{alone}");
    }

    #[test]
    fn peers_are_ordered_and_what_is_not_known_comes_last() {
        let mut peers = [
            absent("12D3KooWc", PeerState::Idle, None),
            peer("12D3KooWb", Some("b"), &["10.42.0.9/32"]),
            peer("12D3KooWa", Some("A"), &["10.42.0.2/32"]),
        ];
        peers[1].tx_bytes_per_second = Some(3.0);
        peers[2].rtt_ms = Some(9.0);
        let mut ordered = |sort: PeerSort| {
            peers.sort_by(|a, b| sort.order(a, b));
            peers
                .iter()
                .map(|peer| peer.id.split_at(8).1.to_owned())
                .collect::<String>()
        };

        assert_eq!(ordered(PeerSort::Name), "abc");
        assert_eq!(ordered(PeerSort::Rtt), "abc");
        assert_eq!(ordered(PeerSort::Sent), "abc");
        assert_eq!(ordered(PeerSort::State), "abc");
        assert_eq!(ordered(PeerSort::Address), "abc");
    }
}
