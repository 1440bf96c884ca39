//! The `[discovery]` section.

use libp2p::Multiaddr;

use super::address::{ANNOUNCED_ALLOWED, announced_address};
use super::problem::{Located, Problems};
use super::reader::Table;
use stream_router::p2p::MAX_ANNOUNCED_ADDRESSES;

/// How peers are found beyond their `addresses`; by default not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoverySection {
    mdns: bool,
    dht: bool,
    announce: Vec<Multiaddr>,
}

impl DiscoverySection {
    /// Returns whether peers on the local network are found by mDNS.
    pub fn mdns(&self) -> bool {
        self.mdns
    }

    /// Returns whether peers are found through other peers.
    pub fn dht(&self) -> bool {
        self.dht
    }

    /// Returns the addresses at which this node announces itself; if there are none, it announces those that it listens
    /// on.
    pub fn announce(&self) -> &[Multiaddr] {
        &self.announce
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let mdns = table.boolean("mdns", problems).unwrap_or_default();
        let dht = table.boolean("dht", problems).unwrap_or_default();
        let announce = announce(&mut table, problems);
        if let Some(first) = announce.first().filter(|_| !dht) {
            problems.add(
                &first.place,
                "nobody is told without the DHT",
                "dht = true beside it, or no announce",
            );
        }
        if let Some(first_too_many) = announce.get(MAX_ANNOUNCED_ADDRESSES) {
            problems.add(
                &first_too_many.place,
                format!("there are {} addresses", announce.len()),
                format!("at most {MAX_ANNOUNCED_ADDRESSES}"),
            );
        }
        table.finish(problems);
        Self {
            mdns,
            dht,
            announce: announce.into_iter().map(|found| found.value).collect(),
        }
    }
}

fn announce(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Located<Multiaddr>> {
    let mut addresses: Vec<Located<Multiaddr>> = Vec::new();
    for Located { place, value } in table
        .strings("announce", ANNOUNCED_ALLOWED, problems)
        .unwrap_or_default()
    {
        match announced_address(&value) {
            Ok(address) if addresses.iter().any(|known| known.value == address) => {
                problems.add(&place, format!("{value} is listed twice"), "each address once");
            }
            Ok(address) => addresses.push(Located {
                place,
                value: address,
            }),
            Err(wrong) => problems.add(&place, wrong, ANNOUNCED_ALLOWED),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError};

    fn parse(discovery: &str) -> Result<Config, ConfigError> {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n[discovery]\n{discovery}\n");
        Config::parse(&text, Path::new("sr.toml"))
    }

    fn problems(discovery: &str) -> Vec<String> {
        let error = parse(discovery).expect_err("problems");
        error.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn nothing_is_on_unless_it_is_said() {
        let config = parse("").unwrap();
        let discovery = config.discovery();
        assert_eq!(
            (discovery.mdns(), discovery.dht(), discovery.announce()),
            (false, false, &[][..])
        );

        let config = parse("mdns = true\ndht = true\nannounce = ['/ip4/203.0.113.7/tcp/4001']").unwrap();
        let discovery = config.discovery();
        assert!(discovery.mdns() && discovery.dht());
        assert_eq!(
            discovery.announce(),
            ["/ip4/203.0.113.7/tcp/4001".parse().unwrap()]
        );
    }

    #[test]
    fn wrong_fields_are_reported_where_they_stand() {
        assert_eq!(
            problems("mdns = 'yes'\ndth = true\ndht = 1"),
            [
                "sr.toml:4: discovery.mdns: expected a boolean, found a string (allowed: true or false)",
                "sr.toml:5: discovery.dth: unknown field (allowed: mdns, dht, announce)",
                "sr.toml:6: discovery.dht: expected a boolean, found an integer (allowed: true or false)",
            ]
        );
    }

    #[test]
    fn an_announced_address_is_one_that_can_be_dialled() {
        let found = problems(
            "dht = true\nannounce = ['/ip4/0.0.0.0/tcp/4001', '/ip4/203.0.113.7/tcp/1', '/ip4/203.0.113.7/tcp/1']",
        );
        assert!(
            found[0].starts_with("sr.toml:5: discovery.announce[0]: 0.0.0.0 is not the address of a host"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with(
                "sr.toml:5: discovery.announce[2]: /ip4/203.0.113.7/tcp/1 is listed twice (allowed: each address once)"
            ),
            "{found:?}"
        );
        let many: Vec<String> = (1..=17)
            .map(|port| format!("'/ip4/203.0.113.7/tcp/{port}'"))
            .collect();
        assert_eq!(
            problems(&format!("dht = true\nannounce = [{}]", many.join(", "))),
            ["sr.toml:5: discovery.announce[16]: there are 17 addresses (allowed: at most 16)"]
        );
    }

    #[test]
    fn announcing_to_nobody_is_reported() {
        assert_eq!(
            problems("announce = ['/ip4/203.0.113.7/tcp/4001']"),
            [
                "sr.toml:4: discovery.announce[0]: nobody is told without the DHT (allowed: dht = true beside it, or no announce)"
            ]
        );
    }

    #[test]
    fn a_peer_without_an_address_may_be_found_even_if_this_node_does_not_listen() {
        let peer = libp2p::PeerId::random();
        let text = |discovery: &str| {
            format!(
                "[node]\nlisten = []\n[device]\naddresses = ['10.42.0.1/24']\n{discovery}\n\
                 [[peer]]\nid = '{peer}'\nallowed_ips = ['10.42.0.2/32']\n"
            )
        };
        let is_valid = |discovery: &str| Config::parse(&text(discovery), Path::new("sr.toml")).is_ok();

        assert!(!is_valid(""));
        assert!(is_valid("[discovery]\nmdns = true"));
        assert!(is_valid("[discovery]\ndht = true"));
    }
}
