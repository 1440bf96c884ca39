//! The owners of addresses, by a configuration.

use super::Config;
use stream_router::discovery::StaticDiscovery;

/// Answers as the node with this configuration does.
impl From<&Config> for StaticDiscovery {
    fn from(config: &Config) -> Self {
        let peers = config.peers().iter();
        Self::new(peers.flat_map(|peer| peer.allowed_ips().iter().map(|prefix| (*prefix, peer.id()))))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use stream_router::p2p::PeerId;

    #[test]
    fn the_peers_of_a_configuration_own_their_allowed_ips() {
        let (site, host) = (PeerId::random(), PeerId::random());
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24', 'fd42::1/64']\n\
             [[peer]]\nid = '{site}'\nallowed_ips = ['10.1.0.0/16', 'fd42::2/128']\n\
             [[peer]]\nid = '{host}'\nallowed_ips = ['10.1.2.0/24']\n"
        );
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();

        let discovery = StaticDiscovery::from(&config);

        let owner = |address: &str| discovery.owner(address.parse().unwrap());
        assert_eq!(owner("10.1.1.1"), Some(site));
        assert_eq!(owner("10.1.2.1"), Some(host));
        assert_eq!(owner("fd42::2"), Some(site));
        assert_eq!(owner("10.42.0.2"), None);
    }
}
