//! Checks between sections, for values that are right alone and wrong together.

use std::collections::HashMap;

use ipnet::IpNet;
use libp2p::PeerId;

use super::address::ip_of;
use super::device::{MAX_MTU, MIN_MTU_V6, RawDevice};
use super::discovery::DiscoverySection;
use super::node::NodeSection;
use super::peer::RawPeer;
use super::problem::{Place, Problems};
use super::relay::RawRelay;
use super::transport::TransportSection;
use router_common::peer::{MAX_PEERS, MAX_PREFIXES};
use stream_router_engine::route_plan::Underlay;

/// Checks who the peers are, those too that are not enabled, as they can be at any time.
pub(super) fn identities(node: &NodeSection, peers: &[RawPeer], problems: &mut Problems) {
    ids(peers, problems);
    names(node, peers, problems);
}

/// Checks the peers that are enabled against each other, the device and the node.
pub(super) fn check(
    node: &NodeSection,
    discovery: &DiscoverySection,
    relay: &RawRelay,
    device: &RawDevice,
    peers: &[RawPeer],
    problems: &mut Problems,
) {
    limits(peers, problems);
    networks(device, peers, problems);
    reachability(node, discovery, relay, peers, problems);
    mtu(device, peers, problems);
}

/// Checks that no network of a peer takes the node's own packets to peers, which only a mark tells from others.
pub(super) fn unmarked(transport: &TransportSection, peers: &[RawPeer], problems: &mut Problems) {
    if transport.fwmark().is_some() {
        return;
    }
    let addresses = peers.iter().flat_map(|peer| &peer.addresses);
    let underlay: Underlay = addresses.filter_map(ip_of).collect();
    for peer in peers {
        for net in &peer.allowed_ips {
            let wrong = match peer.overrides {
                _ if underlay.is_taken_by(net.value) => "would take the node's own packets to peers as well",
                true => "cannot go before the host's own networks",
                false => continue,
            };
            problems.add(
                &net.place,
                format!("{} {wrong}, as transport.fwmark is 0", net.value),
                "networks without the peers' own addresses and without override, or a transport.fwmark above 0",
            );
        }
    }
}

/// Checks how many peers there are, and how many networks they have.
pub(super) fn limits(peers: &[RawPeer], problems: &mut Problems) {
    if let Some(first_too_many) = peers.get(MAX_PEERS as usize) {
        let wrong = format!("there are {} peers", peers.len());
        problems.add(&first_too_many.place, wrong, format!("at most {MAX_PEERS} peers"));
    }
    let n_prefixes = peers.iter().map(|peer| peer.allowed_ips.len()).sum::<usize>();
    if let Some(first_too_many) = peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips)
        .nth(MAX_PREFIXES as usize)
    {
        let wrong = format!("there are {n_prefixes} allowed_ips");
        problems.add(
            &first_too_many.place,
            wrong,
            format!("at most {MAX_PREFIXES} of all peers together"),
        );
    }
}

fn ids(peers: &[RawPeer], problems: &mut Problems) {
    let mut seen: HashMap<PeerId, &Place> = HashMap::new();
    for id in peers.iter().filter_map(|peer| peer.id.as_ref()) {
        match seen.get(&id.value) {
            Some(earlier) => problems.add(
                &id.place,
                format!("{} is also {}", id.value, earlier.seen_from(&id.place)),
                "one section per peer",
            ),
            None => {
                seen.insert(id.value, &id.place);
            }
        }
    }
}

fn names(node: &NodeSection, peers: &[RawPeer], problems: &mut Problems) {
    let mut seen: HashMap<String, Option<&Place>> = HashMap::new();
    // People do not tell names apart by their case.
    if let Some(own) = node.name() {
        seen.insert(own.to_ascii_lowercase(), None);
    }
    for name in peers.iter().filter_map(|peer| peer.name.as_ref()) {
        let other = match seen.get(&name.value.to_ascii_lowercase()) {
            Some(Some(earlier)) => earlier.seen_from(&name.place),
            Some(None) => "this node's own node.name".to_owned(),
            None => {
                seen.insert(name.value.to_ascii_lowercase(), Some(&name.place));
                continue;
            }
        };
        let wrong = format!("{} is also {other}", name.value);
        problems.add(
            &name.place,
            wrong,
            "a name of its own for each, whatever its case",
        );
    }
}

fn networks(device: &RawDevice, peers: &[RawPeer], problems: &mut Problems) {
    let mut seen: HashMap<IpNet, (usize, &Place)> = HashMap::new();
    for (index, peer) in peers.iter().enumerate() {
        for net in &peer.allowed_ips {
            match seen.get(&net.value) {
                Some((owner, earlier)) => {
                    let what = if *owner == index {
                        "listed twice"
                    } else {
                        "overlapping allowed_ips"
                    };
                    let wrong = format!("{what}: {} is also {}", net.value, earlier.seen_from(&net.place));
                    problems.add(
                        &net.place,
                        wrong,
                        "each network once; a longer prefix inside another is fine",
                    );
                }
                None => {
                    seen.insert(net.value, (index, &net.place));
                }
            }
            let own = device
                .addresses
                .iter()
                .find(|own| IpNet::from(own.value.addr()) == net.value);
            if let Some(own) = own {
                let wrong = format!(
                    "{} is this node's own {}",
                    net.value,
                    own.place.seen_from(&net.place)
                );
                problems.add(&net.place, wrong, "networks behind the peer");
            }
        }
    }
}

fn reachability(
    node: &NodeSection,
    discovery: &DiscoverySection,
    relay: &RawRelay,
    peers: &[RawPeer],
    problems: &mut Problems,
) {
    if !node.listen().is_empty() || discovery.mdns() || discovery.dht() {
        return;
    }
    let is_out_of_reach = |peer: &&RawPeer| peer.n_addresses_listed == 0 && !relay.leads_here(peer);
    for peer in peers.iter().filter(is_out_of_reach) {
        problems.add(
            &peer.place.field("addresses", peer.place.line),
            "no side can dial: the peer has no address and node.listen is empty",
            "an address of the peer, or one in node.listen",
        );
    }
}

fn mtu(device: &RawDevice, peers: &[RawPeer], problems: &mut Problems) {
    let mut nets = device
        .addresses
        .iter()
        .chain(peers.iter().flat_map(|peer| &peer.allowed_ips));
    let Some(v6) = nets.find(|net| net.value.addr().is_ipv6()) else {
        return;
    };
    if device.mtu.value < MIN_MTU_V6 {
        let wrong = format!(
            "{} is too small for the IPv6 of {}",
            device.mtu.value,
            v6.place.seen_from(&device.mtu.place)
        );
        problems.add(
            &device.mtu.place,
            wrong,
            format!("an integer from {MIN_MTU_V6} to {MAX_MTU} with IPv6"),
        );
    }
}
