//! How a node finds its peers.

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Config;
use stream_router::p2p::{DhtConfig, DiscoveryConfig};

/// Returns what the network must know to find peers. `allowed_ips` gives the prefixes that peers have at the time of
/// the call.
pub(super) fn settings(
    config: &Config,
    allowed_ips: impl Fn(&mut dyn FnMut(&IpNet)) + Send + Sync + 'static,
) -> DiscoveryConfig {
    let discovery = config.discovery();
    let own = config.device().addresses().to_vec();
    DiscoveryConfig {
        prefer: config.transport().preferred(),
        mdns: discovery.mdns(),
        dht: discovery.dht().then(|| DhtConfig {
            networks: own.iter().map(|address| IpNet::from(address.addr())).collect(),
            announce: discovery.announce().to_vec(),
        }),
        // Dialling a peer at an address that is routed to the tunnel would need the connection that is to be made. A
        // default route and its halves do not take the packets between nodes.
        is_inner: Arc::new(move |address| {
            let mut inner = own.iter().any(|net| net.contains(&address));
            allowed_ips(&mut |net| inner |= net.prefix_len() > 1 && net.contains(&address));
            inner
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;

    use libp2p::PeerId;

    use super::*;

    #[test]
    fn what_is_routed_to_the_tunnel_is_inner_and_a_default_route_makes_nothing_so() {
        let peer = PeerId::random();
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24', 'fd42::1/64']\n[discovery]\ndht = true\n\
             [[peer]]\nid = '{peer}'\nallowed_ips = ['0.0.0.0/0', '128.0.0.0/1', '::/1', '192.168.7.0/24']\n"
        );
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();

        let nets = config.peers()[0].allowed_ips().to_vec();
        let settings = settings(&config, move |look| nets.iter().for_each(look));

        let is_inner = |text: &str| (settings.is_inner)(text.parse::<IpAddr>().unwrap());
        for inner in ["10.42.0.1", "10.42.0.77", "fd42::2", "192.168.7.1"] {
            assert!(is_inner(inner), "{inner}");
        }
        for outer in ["192.0.2.1", "10.43.0.1", "2001:db8::1"] {
            assert!(!is_inner(outer), "{outer}");
        }
        let dht = settings.dht.expect("it is on");
        let networks: Vec<_> = dht.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.42.0.1/32", "fd42::1/128"]);
        assert!(!settings.mdns);
    }
}
