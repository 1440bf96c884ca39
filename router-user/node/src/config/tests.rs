//! What files say, and what is wrong with them.

mod device;
mod peers;
mod values;
mod written;

use libp2p::Multiaddr;

use super::*;

/// Ids of peers, in no order.
pub(crate) const IDS: [&str; 3] = [
    "12D3KooWMYMWphmct4pLLpq7wH8UxrcpeE7J6GUWn6vkdFhRbod7",
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X",
];

const A: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
const B: &str = "12D3KooWHbEputWi1fJAxoYgmvvDe3yP7acTACqmXKGYwMgN2daQ";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("sr.toml"))
}

fn problems_of(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Problems of a device with the given lines, which stand from line 2 on.
fn device_problems(lines: &str) -> Vec<String> {
    problems_of(&format!("[device]\n{lines}\n"))
}

/// Problems of a peer with the given lines, which stand from line 5 on.
fn peer_problems(lines: &str) -> Vec<String> {
    problems_of(&format!(
        "[device]\naddresses = ['10.42.0.1/24', 'fd42::1/64']\n[[peer]]\nid = '{A}'\n{lines}\n"
    ))
}

#[test]
fn the_documented_example_is_valid() {
    let config = parse(&format!(
        r#"
        [node]
        key = "/etc/sr.key"
        listen = ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1"]
        control = "/run/sr.sock"
        [device]
        name = "sr1"
        addresses = ["10.42.0.1/24", "fd42::1/64"]
        mtu = 1_400
        [[peer]]
        id = "{A}"
        addresses = ["/ip4/192.0.2.2/tcp/4001/p2p/{A}", "/ip6/2001:db8::2/udp/4001/quic-v1"]
        allowed_ips = ["10.42.0.2/32", "fd42::2/128", "192.168.7.0/24"]
        [[peer]]
        id = "{B}"
        allowed_ips = ["192.168.7.128/25"]
        "#
    ))
    .unwrap();

    assert_eq!(config.node().key(), Path::new("/etc/sr.key"));
    assert_eq!(config.node().control(), Path::new("/run/sr.sock"));
    let listen: Vec<String> = config.node().listen().iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1"]);
    assert_eq!((config.device().name(), config.device().mtu()), ("sr1", 1400));
    let addresses: Vec<String> = config
        .device()
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["10.42.0.1/24", "fd42::1/64"]);
    let [first, second] = config.peers() else {
        panic!("{:?}", config.peers())
    };
    assert_eq!(first.id().to_string(), A);
    let dial: Vec<String> = first.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(
        dial,
        ["/ip4/192.0.2.2/tcp/4001", "/ip6/2001:db8::2/udp/4001/quic-v1"]
    );
    assert_eq!(first.allowed_ips().len(), 3);
    assert_eq!(second.addresses(), []);
    assert_eq!(
        second.allowed_ips(),
        ["192.168.7.128/25".parse::<IpNet>().unwrap()]
    );
}

#[test]
fn everything_but_the_address_of_the_device_has_a_default() {
    let config = parse("[device]\naddresses = ['10.42.0.1/24']").unwrap();

    assert_eq!(
        config.node().key(),
        Path::new("/var/lib/stream-router/identity.key")
    );
    assert_eq!(
        config.node().control(),
        Path::new("/run/stream-router/control.sock")
    );
    let listen = [true, false].map(node::default_listen);
    let shown = |listen: &[Multiaddr]| listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown(&listen[0]),
        [
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip6/::/tcp/4001",
            "/ip6/::/udp/4001/quic-v1"
        ]
    );
    assert_eq!(listen[1], listen[0][..2]);
    assert!(listen.iter().any(|listen| listen == config.node().listen()));
    assert_eq!((config.device().name(), config.device().mtu()), ("sr0", 1420));
    assert_eq!(config.peers(), []);
}

#[test]
fn an_empty_file_lacks_the_address_of_the_device() {
    assert_eq!(
        problems_of(""),
        [
            "sr.toml:1: device.addresses: missing (allowed: at least one element, a unicast address with its prefix \
             length, such as \"10.42.0.1/24\" or \"fd42::1/64\")"
        ]
    );
}

#[test]
fn every_problem_is_reported_in_the_order_of_the_file() {
    let text = "x = 1\n[node]\nkey = 'a'\nlisten = '/ip4/0.0.0.0/tcp/1'\n[device]\nmtu = 100\n[[peer]]\nid = 7\n\
                allowed_ips = [\n  '10.0.0.1/8',\n  true,\n]\nspeed = 1\n";
    assert_eq!(
        problems_of(text),
        [
            "sr.toml:1: x: unknown field (allowed: node, device, workers, connections, streams, transport, log, discovery, \
             metrics, otlp, exit, relay, hooks, gateway, peer)",
            "sr.toml:3: node.key: \"a\" is not the absolute path of a file (allowed: an absolute path)",
            "sr.toml:4: node.listen: expected an array of strings, found a string (allowed: an array, each element \
             /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6)",
            "sr.toml:5: device.addresses: missing (allowed: at least one element, a unicast address with its prefix \
             length, such as \"10.42.0.1/24\" or \"fd42::1/64\")",
            "sr.toml:6: device.mtu: 100 is out of range (allowed: an integer from 576 to 32000)",
            "sr.toml:8: peer[0].id: expected a string, found an integer (allowed: a peer id as `stream-router id` \
             prints it, such as \"12D3KooW...\")",
            "sr.toml:10: peer[0].allowed_ips[0]: 10.0.0.1/8 has host bits set, the network is 10.0.0.0/8 (allowed: a \
             unicast network with its prefix length, such as \"10.42.0.2/32\" or \"192.168.7.0/24\")",
            "sr.toml:11: peer[0].allowed_ips[1]: expected a string, found a boolean (allowed: a unicast network with \
             its prefix length, such as \"10.42.0.2/32\" or \"192.168.7.0/24\")",
            "sr.toml:13: peer[0].speed: unknown field (allowed: id, addresses, allowed_ips, rate, override, connect, name, enabled, comment)",
        ]
    );
}

#[test]
fn what_is_not_toml_is_reported_by_line() {
    assert_eq!(
        problems_of("[device]\nmtu = 1420\nmtu = 1421\n[node\n"),
        [
            "sr.toml:3: syntax: duplicate key (allowed: a TOML document)",
            "sr.toml:4: syntax: unclosed table, expected `]` (allowed: a TOML document)",
        ]
    );
}

#[test]
fn sections_of_the_wrong_kind_are_reported() {
    assert_eq!(
        problems_of("node = 1\npeer = 2\n[[device]]\n"),
        [
            "sr.toml:1: node: expected a table, found an integer (allowed: a [node] section)",
            "sr.toml:2: peer: expected an array of tables, found an integer (allowed: [[peer]] sections)",
            "sr.toml:3: device: expected a table, found an array (allowed: a [device] section)",
        ]
    );
}

#[test]
fn paths_are_absolute_and_the_socket_path_fits_its_address() {
    let long = format!("/{}", "x".repeat(107));
    let text = format!("[node]\nkey = '/a/'\ncontrol = '{long}'\n[device]\naddresses = ['10.42.0.1/24']\n");
    assert_eq!(
        problems_of(&text),
        [
            "sr.toml:2: node.key: \"/a/\" is not the absolute path of a file (allowed: an absolute path)",
            "sr.toml:3: node.control: the path has 108 bytes (allowed: an absolute path of at most 107 bytes)",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nonexistent/sr.toml")).unwrap_err();

    assert_eq!(
        error.to_string(),
        "cannot read the configuration /nonexistent/sr.toml"
    );
    assert!(std::error::Error::source(&error).is_some());
}
