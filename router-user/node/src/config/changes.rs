//! What is different between the configuration that a node runs with and a new one, and what of it a running node
//! takes.

use std::collections::HashMap;

use libp2p::PeerId;

use super::{Config, ConnectionsConfig, ScalingConfig, StreamRouterConfig, WorkersConfig};

/// The differences, by the names of the fields in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Peers that are new.
    pub peers_added: Vec<PeerId>,
    /// Peers that are not configured any more.
    pub peers_removed: Vec<PeerId>,
    /// Peers with another name, other addresses, other `allowed_ips`, another rate, or other values of other fields.
    pub peers_changed: Vec<PeerId>,
    /// Other fields that a running node takes.
    pub applied: Vec<&'static str>,
    /// Fields that take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

impl Changes {
    /// Returns whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// Returns what is different in `new`, for a node that runs with `self`.
    pub fn changes(&self, new: &Self) -> Changes {
        let mut changes = Changes::default();
        // Every section by its name, so that none is forgotten.
        let Self {
            node,
            device,
            router,
            transport,
            log,
            discovery,
            metrics,
            otlp,
            exit,
            relay,
            hooks,
            gateways,
            peers: _,
            disabled: _,
        } = self;
        compare_peers(self, new, &mut changes);
        let mut live = Fields(&mut changes.applied);
        live.compare("relay.via", relay.via(), new.relay.via());
        live.compare("log.level", log.level(), new.log.level());
        live.compare(
            "transport.prefer",
            &transport.quic_first(),
            &new.transport.quic_first(),
        );
        live.compare("device.on_stop", &device.on_stop(), &new.device.on_stop());
        live.compare(
            "metrics.token_file",
            &metrics.token_file(),
            &new.metrics.token_file(),
        );
        live.compare("exit.serve", &exit.serve(), &new.exit.serve());
        let (rates, new_rates) = (relay.rates(), new.relay.rates());
        live.compare("relay.max_rate", &rates.all, &new_rates.all);
        live.compare("relay.max_rate_per_peer", &rates.per_peer, &new_rates.per_peer);
        let mut restart = Fields(&mut changes.needs_restart);
        restart.compare("node.name", &node.name(), &new.node.name());
        restart.compare("node.key", node.key(), new.node.key());
        restart.compare("node.listen", node.listen(), new.node.listen());
        restart.compare("node.control", node.control(), new.node.control());
        restart.compare("device.name", device.name(), new.device.name());
        restart.compare("device.addresses", device.addresses(), new.device.addresses());
        restart.compare("device.mtu", &device.mtu(), &new.device.mtu());
        restart.compare("device.clamp_mss", &device.clamp_mss(), &new.device.clamp_mss());
        restart.compare(
            "transport.connections_per_peer",
            &transport.n_connections(),
            &new.transport.n_connections(),
        );
        restart.compare(
            "transport.hold_time",
            &transport.hold_time(),
            &new.transport.hold_time(),
        );
        restart.compare(
            "transport.busy_poll",
            &transport.busy_poll(),
            &new.transport.busy_poll(),
        );
        restart.compare(
            "transport.keepalive",
            &transport.keepalive(),
            &new.transport.keepalive(),
        );
        restart.compare(
            "transport.idle_time",
            &transport.idle_time(),
            &new.transport.idle_time(),
        );
        restart.compare("transport.dscp", &transport.dscp(), &new.transport.dscp());
        restart.compare("transport.fwmark", &transport.fwmark(), &new.transport.fwmark());
        let (tcp, new_tcp) = (transport.tcp(), new.transport.tcp());
        restart.compare("transport.congestion", &tcp.congestion, &new_tcp.congestion);
        restart.compare("transport.mptcp", &tcp.multipath, &new_tcp.multipath);
        restart.compare("transport.uplink", transport.uplinks(), new.transport.uplinks());
        restart.compare("transport.punch", &transport.punch(), &new.transport.punch());
        restart.compare(
            "transport.port_mapping",
            &transport.port_mapping(),
            &new.transport.port_mapping(),
        );
        restart.compare("transport.proxy", &tcp.proxy, &new_tcp.proxy);
        restart.compare(
            "transport.proxy_password_file",
            &transport.proxy_password_file(),
            &new.transport.proxy_password_file(),
        );
        restart.compare("log.format", &log.format(), &new.log.format());
        restart.compare("discovery.mdns", &discovery.mdns(), &new.discovery.mdns());
        restart.compare("discovery.dht", &discovery.dht(), &new.discovery.dht());
        restart.compare(
            "discovery.announce",
            discovery.announce(),
            new.discovery.announce(),
        );
        restart.compare("metrics.listen", &metrics.listen(), &new.metrics.listen());
        restart.compare("metrics.hosts", metrics.hosts(), new.metrics.hosts());
        restart.compare("otlp", otlp, &new.otlp);
        restart.compare("relay.serve", &relay.serve(), &new.relay.serve());
        restart.compare(
            "relay.max_circuits",
            &relay.limits().max_circuits,
            &new.relay.limits().max_circuits,
        );
        restart.compare(
            "relay.max_circuits_per_peer",
            &relay.limits().max_circuits_per_peer,
            &new.relay.limits().max_circuits_per_peer,
        );
        restart.compare("hooks", hooks, &new.hooks);
        restart.compare("gateway", gateways, &new.gateways);
        compare_routers(router, &new.router, &mut changes);
        changes
    }

    /// Returns what a node runs with that ran with `self` and was given `new`: fields that need a restart stay as they
    /// were.
    #[must_use]
    pub fn adopting(&self, new: &Self) -> Self {
        Self {
            node: self.node.clone(),
            device: self.device.with_stop_of(&new.device),
            router: self.router.adopting(&new.router),
            transport: self.transport.with_preference_of(&new.transport),
            log: self.log.with_level_of(&new.log),
            discovery: self.discovery.clone(),
            metrics: self.metrics.with_token_file_of(&new.metrics),
            otlp: self.otlp.clone(),
            exit: new.exit.clone(),
            relay: self.relay.with_live_of(&new.relay),
            hooks: self.hooks.clone(),
            gateways: self.gateways.clone(),
            peers: new.peers.clone(),
            disabled: new.disabled.clone(),
        }
    }
}

fn compare_peers(old: &Config, new: &Config, changes: &mut Changes) {
    let before: HashMap<_, _> = old.peers().iter().map(|peer| (peer.id(), peer)).collect();
    let after: HashMap<_, _> = new.peers().iter().map(|peer| (peer.id(), peer)).collect();
    for peer in new.peers() {
        match before.get(&peer.id()) {
            None => changes.peers_added.push(peer.id()),
            Some(known) if *known != peer => changes.peers_changed.push(peer.id()),
            Some(_) => {}
        }
    }
    let gone = old.peers().iter().filter(|peer| !after.contains_key(&peer.id()));
    changes.peers_removed.extend(gone.map(|peer| peer.id()));
}

fn compare_routers(old: &StreamRouterConfig, new: &StreamRouterConfig, changes: &mut Changes) {
    let mut live = Fields(&mut changes.applied);
    live.scaling(
        [
            "workers.min",
            "workers.max",
            "workers.scale_interval",
            "workers.scale_up",
            "workers.scale_down",
        ],
        (old.workers().scaling(), new.workers().scaling()),
    );
    let (before, after): (&ConnectionsConfig, _) = (old.connections(), new.connections());
    live.compare("connections.ttl", &before.ttl(), &after.ttl());
    live.compare(
        "connections.cleanup_interval",
        &before.cleanup_interval(),
        &after.cleanup_interval(),
    );
    live.scaling(
        [
            "streams.min_per_peer",
            "streams.max_per_peer",
            "streams.scale_interval",
            "streams.scale_up",
            "streams.scale_down",
        ],
        (old.streams().scaling(), new.streams().scaling()),
    );
    live.compare(
        "streams.throughput_threshold",
        &old.streams().throughput_threshold(),
        &new.streams().throughput_threshold(),
    );
    let mut restart = Fields(&mut changes.needs_restart);
    restart.compare(
        "connections.max_entries",
        &before.max_entries(),
        &after.max_entries(),
    );
    restart.compare("connections.shards", &before.shards(), &after.shards());
    let (before, after): (&WorkersConfig, _) = (old.workers(), new.workers());
    // Where it is not written it follows the bounds.
    let bounds = after.scaling().scaler;
    let initial = before.initial().clamp(bounds.min, bounds.max);
    restart.compare("workers.initial", &initial, &after.initial());
    restart.compare("workers.queue_size", &before.queue_size(), &after.queue_size());
    restart.compare("workers.threads", &before.threads(), &after.threads());
}

/// Collects the names of fields that differ.
struct Fields<'a>(&'a mut Vec<&'static str>);

impl Fields<'_> {
    fn compare<T: PartialEq + ?Sized>(&mut self, name: &'static str, old: &T, new: &T) {
        if old != new {
            self.0.push(name);
        }
    }

    fn scaling(
        &mut self,
        [min, max, interval, up, down]: [&'static str; 5],
        (old, new): (ScalingConfig, ScalingConfig),
    ) {
        self.compare(min, &old.scaler.min, &new.scaler.min);
        self.compare(max, &old.scaler.max, &new.scaler.max);
        self.compare(interval, &old.interval, &new.interval);
        self.compare(up, &old.scaler.scale_up, &new.scaler.scale_up);
        self.compare(down, &old.scaler.scale_down, &new.scaler.scale_down);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::IDS;

    const PLAIN: &str = "[device]\naddresses = ['10.42.0.1/24']\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("sr.toml")).expect("a configuration")
    }

    fn peer(n: usize, address: &str, net: &str) -> String {
        format!(
            "[[peer]]\nid = '{}'\naddresses = ['{address}']\nallowed_ips = ['{net}']\n",
            IDS[n]
        )
    }

    #[test]
    fn peers_are_told_apart_by_their_ids() {
        let at = "/ip4/192.0.2.2/tcp/4001";
        let old = config(&[PLAIN, &peer(0, at, "10.0.0.0/24"), &peer(1, at, "10.0.1.0/24")].concat());
        let new = config(&[PLAIN, &peer(2, at, "10.0.0.0/24"), &peer(1, at, "10.0.2.0/24")].concat());

        let changes = old.changes(&new);

        let ids = |ids: &[PeerId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ids(&changes.peers_added), [IDS[2]]);
        assert_eq!(ids(&changes.peers_removed), [IDS[0]]);
        assert_eq!(ids(&changes.peers_changed), [IDS[1]]);
        assert!(changes.applied.is_empty() && changes.needs_restart.is_empty());
    }

    #[test]
    fn another_rate_changes_a_peer() {
        let peer = peer(0, "/ip4/192.0.2.2/tcp/4001", "10.0.0.0/24");
        let old = config(&[PLAIN, &peer].concat());
        let new = config(&[PLAIN, &peer, "rate = 125000\n"].concat());

        assert_eq!(old.changes(&new).peers_changed, [old.peers()[0].id()]);
        assert_eq!(old.adopting(&new).peers()[0].rate(), new.peers()[0].rate());
    }

    #[test]
    fn the_order_of_the_peers_is_no_change() {
        let (first, second) = (
            peer(0, "/ip4/192.0.2.2/tcp/4001", "10.0.0.0/24"),
            peer(1, "/ip4/192.0.2.3/tcp/4001", "10.0.1.0/24"),
        );
        let old = config(&[PLAIN, &first, &second].concat());
        assert!(
            old.changes(&config(&[PLAIN, &second, &first].concat()))
                .is_empty()
        );
    }

    #[test]
    fn what_is_announced_needs_a_restart() {
        let dht = [PLAIN, "[discovery]\ndht = true\n"].concat();
        let announced = [&dht, "announce = ['/ip4/192.0.2.9/tcp/4001']\n"].concat();

        let changes = config(&dht).changes(&config(&announced));

        assert_eq!(changes.needs_restart, ["discovery.announce"]);
    }

    #[test]
    fn other_uplinks_need_a_restart() {
        let old = [PLAIN, "[[transport.uplink]]\ndevice = 'wan0'\n"].concat();
        for more in [
            "weight = 2",
            "cost = 7",
            "metered = true",
            "[[transport.uplink]]\nsource = '192.0.2.1'",
        ] {
            let (old, new) = (config(&old), config(&[&old, more].concat()));
            assert_eq!(old.changes(&new).needs_restart, ["transport.uplink"], "{more}");
            assert_eq!(old.adopting(&new), old);
        }
    }

    /// One value other than the default for every field of the file that can stand without another, and whether a
    /// running node takes it.
    const FIELDS: [(&str, &str, &str, bool); 58] = [
        ("node", "name", "'a'", false),
        ("node", "key", "'/k'", false),
        ("node", "listen", "[]", false),
        ("node", "control", "'/c'", false),
        ("device", "name", "'sr1'", false),
        ("device", "addresses", "['10.42.0.9/24']", false),
        ("device", "mtu", "1400", false),
        ("device", "clamp_mss", "false", false),
        ("device", "on_stop", "'block'", true),
        ("workers", "min", "2", true),
        ("workers", "initial", "5", false),
        ("workers", "max", "31", true),
        ("workers", "queue_size", "500", false),
        ("workers", "threads", "255", false),
        ("workers", "scale_interval", "'7s'", true),
        ("workers", "scale_up", "0.7", true),
        ("workers", "scale_down", "0.2", true),
        ("connections", "ttl", "'7s'", true),
        ("connections", "cleanup_interval", "'7s'", true),
        ("connections", "max_entries", "5000", false),
        ("connections", "shards", "17", false),
        ("streams", "min_per_peer", "2", true),
        ("streams", "max_per_peer", "11", true),
        ("streams", "throughput_threshold", "7", true),
        ("streams", "scale_interval", "'7s'", true),
        ("streams", "scale_up", "0.7", true),
        ("streams", "scale_down", "0.2", true),
        ("transport", "prefer", "['quic', 'tcp']", true),
        ("transport", "connections_per_peer", "3", false),
        ("transport", "busy_poll", "'50us'", false),
        ("transport", "dscp", "46", false),
        ("transport", "fwmark", "7", false),
        ("transport", "congestion", "'cubic'", false),
        ("transport", "mptcp", "true", false),
        ("transport", "punch", "false", false),
        ("transport", "port_mapping", "true", false),
        ("transport", "proxy", "'socks5://192.0.2.8'", false),
        ("log", "level", "'debug'", true),
        ("log", "format", "'json'", false),
        ("discovery", "mdns", "true", false),
        ("discovery", "dht", "true", false),
        ("metrics", "listen", "'127.0.0.1:9464'", false),
        ("metrics", "hosts", "['node']", false),
        ("metrics", "token_file", "'/t'", true),
        ("otlp", "endpoint", "'http://127.0.0.1'", false),
        ("otlp", "interval", "'7s'", false),
        ("otlp", "headers_file", "'/h'", false),
        ("otlp", "attributes", "['a=b']", false),
        ("exit", "serve", "true", true),
        ("relay", "serve", "true", false),
        ("relay", "max_circuits", "7", false),
        ("relay", "max_circuits_per_peer", "7", false),
        ("relay", "max_rate", "9000", true),
        ("relay", "max_rate_per_peer", "9000", true),
        ("gateway", "interface", "'lan0'", false),
        ("gateway", "hook", "'xdp'", false),
        ("gateway", "sink", "'auto'", false),
        ("peer", "id", "", true),
    ];

    /// Returns a file that says the fields of `FIELDS` that are chosen.
    fn text(chosen: &[bool]) -> String {
        let mut text = String::new();
        let is_chosen = |section: &str, field: &str| {
            let found = FIELDS
                .iter()
                .position(|(other, name, ..)| *other == section && *name == field);
            found.is_some_and(|at| chosen.get(at).copied().unwrap_or(false))
        };
        for section in [
            "node",
            "device",
            "workers",
            "connections",
            "streams",
            "transport",
            "log",
            "discovery",
            "metrics",
            "otlp",
            "exit",
            "relay",
        ] {
            text += &format!("[{section}]\n");
            for (_, field, value, _) in FIELDS.iter().filter(|(other, ..)| *other == section) {
                if is_chosen(section, field) {
                    text += &format!("{field} = {value}\n");
                } else if *field == "addresses" {
                    text += "addresses = ['10.42.0.1/24']\n";
                }
            }
        }
        let of_gateway = ["interface", "hook", "sink"];
        if of_gateway.iter().any(|field| is_chosen("gateway", field)) {
            text += "[[gateway]]\ninterface = 'lan0'\n";
            for (_, field, value, _) in FIELDS.iter().filter(|(other, ..)| *other == "gateway") {
                if *field != "interface" && is_chosen("gateway", field) {
                    text += &format!("{field} = {value}\n");
                }
            }
        }
        if is_chosen("peer", "id") {
            text += &peer(0, "/ip4/192.0.2.2/tcp/4001", "10.0.0.0/24");
        }
        text
    }

    #[test]
    fn relays_are_taken_at_once_and_what_is_relayed_stays() {
        let peer = peer(0, "/ip4/192.0.2.2/tcp/4001", "10.0.0.0/24");
        let relaying = format!("via = ['{}']\nserve = true\n", IDS[0]);
        let [before, after] = ["", &relaying].map(|relay| config(&format!("{PLAIN}[relay]\n{relay}{peer}")));

        let changes = before.changes(&after);

        assert_eq!(changes.applied, ["relay.via"]);
        assert_eq!(changes.needs_restart, ["relay.serve"]);
        let adopted = before.adopting(&after);
        assert_eq!(adopted.relay().via(), after.relay().via());
        assert!(!adopted.relay().via().is_empty() && !adopted.relay().serve());
    }

    #[test]
    fn every_field_is_either_taken_or_named_as_one_that_needs_a_restart() {
        let plain = config(PLAIN);
        for (at, (section, field, _, live)) in FIELDS.iter().enumerate() {
            let chosen: Vec<_> = (0..FIELDS.len()).map(|other| other == at).collect();
            let changes = plain.changes(&config(&text(&chosen)));

            let name = match *section {
                "gateway" | "otlp" => (*section).to_owned(),
                section => format!("{section}.{field}"),
            };
            if *section == "peer" {
                assert_eq!(changes.peers_added.len(), 1);
            } else {
                let (named, other) = match live {
                    true => (&changes.applied, &changes.needs_restart),
                    false => (&changes.needs_restart, &changes.applied),
                };
                assert_eq!(
                    (named.as_slice(), other.as_slice()),
                    (&[name.as_str()][..], &[][..])
                );
            }
        }
    }

    proptest! {
        #[test]
        fn the_same_file_again_changes_nothing(chosen in prop::collection::vec(any::<bool>(), FIELDS.len())) {
            let (once, again) = (config(&text(&chosen)), config(&text(&chosen)));
            prop_assert!(once.changes(&again).is_empty());
            prop_assert_eq!(once.adopting(&again), once);
        }

        #[test]
        fn what_was_taken_is_no_change_any_more_and_what_was_not_stays_one(
            before in prop::collection::vec(any::<bool>(), FIELDS.len()),
            after in prop::collection::vec(any::<bool>(), FIELDS.len()),
        ) {
            let (old, new) = (config(&text(&before)), config(&text(&after)));
            let first = old.changes(&new);
            let second = old.adopting(&new).changes(&new);
            prop_assert_eq!(&second.needs_restart, &first.needs_restart);
            prop_assert_eq!(second, Changes { needs_restart: first.needs_restart, ..Changes::default() });
        }
    }
}
