use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use proptest::prelude::*;

use super::*;
use router_common::peer::{MAX_PEERS, MAX_PREFIXES};

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
             metrics, exit, hooks, gateway, peer)",
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
fn names_are_words_and_everybody_has_another() {
    let text = format!(
        "[node]\nname = 'Berlin'\n[device]\naddresses = ['10.42.0.1/24']\n\
         [[peer]]\nname = 'paris'\nid = '{A}'\nallowed_ips = ['10.42.0.2/32']\n\
         [[peer]]\nname = 'PARIS'\nid = '{B}'\nallowed_ips = ['10.42.0.3/32']\n"
    );
    let allowed = "(allowed: a name of its own for each, whatever its case)";
    assert_eq!(
        problems_of(&text),
        [format!(
            "sr.toml:10: peer[1].name: PARIS is also peer[0].name (line 6) {allowed}"
        )]
    );
    assert_eq!(
        problems_of(&text.replace("PARIS", "berlin")),
        [format!(
            "sr.toml:10: peer[1].name: berlin is also this node's own node.name {allowed}"
        )]
    );
    let [of_node, of_peer] = &problems_of(&text.replace("Berlin", "a b").replace("'PARIS'", "7"))[..] else {
        panic!("two names are wrong");
    };
    assert!(
        of_node.starts_with("sr.toml:2: node.name: \"a b\" is no name (allowed: 1 to 63"),
        "{of_node}"
    );
    assert!(
        of_peer.starts_with("sr.toml:10: peer[1].name: expected a string"),
        "{of_peer}"
    );
    let config = parse(&text.replace("PARIS", "rome")).unwrap();
    assert_eq!(config.node().name(), Some("Berlin"));
    let names: Vec<_> = config.peers().iter().map(PeerSection::name).collect();
    assert_eq!(names, [Some("paris"), Some("rome")]);
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
fn addresses_of_the_device_are_those_of_one_host() {
    for (address, wrong) in [
        ("10.42.0.1", "10.42.0.1 has no prefix length"),
        (
            "10.42.0.1/33",
            "\"10.42.0.1/33\" is not an address with a prefix length",
        ),
        ("", "\"\" is not an address with a prefix length"),
        ("0.0.0.0/0", "0.0.0.0 is the unspecified address"),
        ("::/64", ":: is the unspecified address"),
        ("127.0.0.2/8", "127.0.0.2 is a loopback address"),
        ("::1/128", "::1 is a loopback address"),
        ("224.0.0.5/24", "224.0.0.5 is a multicast address"),
        ("ff02::1/64", "ff02::1 is a multicast address"),
        ("255.255.255.255/32", "255.255.255.255 is the broadcast address"),
        (
            "::ffff:10.0.0.1/96",
            "::ffff:10.0.0.1 is an IPv4-mapped address; write it as IPv4",
        ),
        (
            "10.42.0.0/24",
            "10.42.0.0/24 is the network, not an address in it",
        ),
        ("fd42::/64", "fd42::/64 is the network, not an address in it"),
        (
            "10.42.0.255/24",
            "10.42.0.255 is the broadcast address of 10.42.0.0/24",
        ),
    ] {
        let expected = format!(
            "sr.toml:2: device.addresses[0]: {wrong} (allowed: a unicast address with its prefix length, such as \
             \"10.42.0.1/24\" or \"fd42::1/64\")"
        );
        assert_eq!(device_problems(&format!("addresses = ['{address}']")), [expected]);
    }
    for fine in [
        "10.42.0.0/31",
        "10.42.0.1/31",
        "10.42.0.7/32",
        "fd42::/127",
        "fd42::/128",
        "fd42::ffff/112",
    ] {
        assert_eq!(device_problems(&format!("addresses = ['{fine}']")), [""; 0]);
    }
}

#[test]
fn an_address_of_the_device_is_listed_once() {
    assert_eq!(
        device_problems("addresses = ['10.42.0.1/24', '10.42.0.1/32']"),
        ["sr.toml:2: device.addresses[1]: 10.42.0.1 is listed twice (allowed: each address once)"]
    );
}

#[test]
fn the_name_of_the_device_is_one_the_kernel_and_bpffs_take() {
    for name in [
        "",
        "a-name-too-long0",
        "a b",
        "a/b",
        "a.b",
        "sr%d",
        "a:b",
        "ä",
        "all",
        "default",
        "lo",
    ] {
        let expected = format!(
            "sr.toml:3: device.name: {name:?} cannot name the device (allowed: 1 to 15 of the characters A-Z a-z 0-9 \
             _ -, not \"all\", \"default\" or \"lo\")"
        );
        assert_eq!(
            device_problems(&format!("addresses = ['10.42.0.1/24']\nname = '{name}'")),
            [expected]
        );
    }
    for fine in ["a", "sr_0-B", "fifteen-letters"] {
        assert_eq!(
            device_problems(&format!("addresses = ['10.42.0.1/24']\nname = '{fine}'")),
            [""; 0]
        );
    }
}

#[test]
fn the_mtu_fits_the_families_carried() {
    let v4 = "addresses = ['10.42.0.1/24']";
    for mtu in ["575", "32001", "-1", "99999999999999999999"] {
        let expected =
            format!("sr.toml:3: device.mtu: {mtu} is out of range (allowed: an integer from 576 to 32000)");
        assert_eq!(device_problems(&format!("{v4}\nmtu = {mtu}")), [expected]);
    }
    assert_eq!(device_problems(&format!("{v4}\nmtu = 576")), [""; 0]);
    assert_eq!(
        device_problems(&format!("{v4}\nmtu = '1420'")),
        [
            "sr.toml:3: device.mtu: expected an integer, found a string (allowed: an integer from 576 to 32000)"
        ]
    );
    assert_eq!(
        device_problems("addresses = ['fd42::1/64']\nmtu = 1279"),
        [
            "sr.toml:3: device.mtu: 1279 is too small for the IPv6 of device.addresses[0] (line 2) (allowed: an integer \
          from 1280 to 32000 with IPv6)"
        ]
    );
    assert_eq!(
        device_problems(&format!(
            "{v4}\nmtu = 1000\n[[peer]]\nid = '{A}'\nallowed_ips = ['fd42::2/128']"
        )),
        [
            "sr.toml:3: device.mtu: 1000 is too small for the IPv6 of peer[0].allowed_ips[0] (line 6) (allowed: an \
          integer from 1280 to 32000 with IPv6)"
        ]
    );
}

#[test]
fn addresses_of_a_peer_are_ones_to_dial() {
    for (address, wrong) in [
        (
            "192.0.2.2:4001",
            "\"192.0.2.2:4001\" is not a multiaddr: invalid multiaddr".to_owned(),
        ),
        (
            "/dns4/a..example/tcp/1",
            "\"a..example\" is not a name that DNS can have".to_owned(),
        ),
        (
            "/dnsaddr/a.example/tcp/1",
            "/dnsaddr/a.example/tcp/1 is not an address of a supported transport".to_owned(),
        ),
        (
            "/ip4/192.0.2.2",
            "/ip4/192.0.2.2 is not an address of a supported transport".to_owned(),
        ),
        (
            "/ip4/192.0.2.2/udp/1",
            "/ip4/192.0.2.2/udp/1 is not an address of a supported transport".to_owned(),
        ),
        (
            "/ip4/192.0.2.2/tcp/1/ws",
            "/ip4/192.0.2.2/tcp/1/ws is not an address of a supported transport".to_owned(),
        ),
        (
            "/ip4/0.0.0.0/tcp/1",
            "0.0.0.0 is not the address of a host".to_owned(),
        ),
        (
            "/ip6/ff02::1/tcp/1",
            "ff02::1 is not the address of a host".to_owned(),
        ),
        ("/ip4/192.0.2.2/tcp/0", "port 0 cannot be dialled".to_owned()),
        (
            &format!("/ip4/192.0.2.2/tcp/1/p2p/{B}"),
            format!("{B} is the id of another peer"),
        ),
    ] {
        let expected = format!(
            "sr.toml:6: peer[0].addresses[0]: {wrong} (allowed: /ip4/ADDRESS/tcp/PORT or \
             /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6, perhaps followed by /p2p/ and the id of this peer)"
        );
        let found = peer_problems(&format!(
            "allowed_ips = ['10.42.0.2/32']\naddresses = ['{address}']"
        ));
        assert_eq!(found, [expected]);
    }
    let same = format!(
        "allowed_ips = ['10.42.0.2/32']\naddresses = ['/ip4/192.0.2.2/tcp/1', '/ip4/192.0.2.2/tcp/1/p2p/{A}']"
    );
    assert_eq!(
        peer_problems(&same),
        [format!(
            "sr.toml:6: peer[0].addresses[1]: /ip4/192.0.2.2/tcp/1/p2p/{A} is listed twice (allowed: each address once)"
        )]
    );
}

#[test]
fn addresses_to_listen_on_carry_no_peer_id() {
    let listen = |address: &str| {
        problems_of(&format!(
            "[node]\nlisten = ['{address}']\n[device]\naddresses = ['10.42.0.1/24']\n"
        ))
    };
    let allowed = "(allowed: /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6)";
    let with_id = format!("/ip4/0.0.0.0/tcp/1/p2p/{A}");

    assert_eq!(
        listen(&with_id),
        [format!(
            "sr.toml:2: node.listen[0]: {with_id} is not an address of a supported transport {allowed}"
        )]
    );
    assert_eq!(
        listen("/ip4/224.0.0.1/tcp/1"),
        [format!(
            "sr.toml:2: node.listen[0]: 224.0.0.1 is a multicast address {allowed}"
        )]
    );
    assert_eq!(listen("/ip6/::/udp/0/quic-v1"), [""; 0]);
}

#[test]
fn a_peer_that_nobody_can_dial_is_reported() {
    let text = format!(
        "[node]\nlisten = []\n[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '{A}'\nallowed_ips = ['10.42.0.2/32']\n"
    );
    assert_eq!(
        problems_of(&text),
        [
            "sr.toml:5: peer[0].addresses: no side can dial: the peer has no address and node.listen is empty (allowed: \
          an address of the peer, or one in node.listen)"
        ]
    );
}

#[test]
fn networks_behind_a_peer_are_unicast_networks() {
    for (net, wrong) in [
        ("10.42.0.2", "10.42.0.2 has no prefix length"),
        (
            "10.42.0.2/24",
            "10.42.0.2/24 has host bits set, the network is 10.42.0.0/24",
        ),
        (
            "fd42::2/64",
            "fd42::2/64 has host bits set, the network is fd42::/64",
        ),
        ("0.0.0.0/32", "0.0.0.0/32 is the unspecified address"),
        ("127.0.0.0/8", "127.0.0.0/8 is a loopback address"),
        ("::1/128", "::1/128 is a loopback address"),
        ("224.0.0.0/4", "224.0.0.0/4 is a multicast address"),
        ("ff00::/8", "ff00::/8 is a multicast address"),
        (
            "255.255.255.255/32",
            "255.255.255.255/32 is the broadcast address",
        ),
        (
            "::ffff:0:0/96",
            "::ffff:0.0.0.0/96 is an IPv4-mapped address; write it as IPv4",
        ),
        ("10.42.0.1/32", ""),
    ] {
        let expected = match wrong {
            "" => "sr.toml:5: peer[0].allowed_ips[0]: 10.42.0.1/32 is this node's own device.addresses[0] (line 2) \
                   (allowed: networks behind the peer)"
                .to_owned(),
            wrong => format!(
                "sr.toml:5: peer[0].allowed_ips[0]: {wrong} (allowed: a unicast network with its prefix length, such \
                 as \"10.42.0.2/32\" or \"192.168.7.0/24\")"
            ),
        };
        assert_eq!(peer_problems(&format!("allowed_ips = ['{net}']")), [expected]);
    }
    for fine in [
        "0.0.0.0/0",
        "::/0",
        "10.42.0.0/24",
        "128.0.0.0/1",
        "fd42::/64",
        "192.0.2.1/32",
    ] {
        assert_eq!(peer_problems(&format!("allowed_ips = ['{fine}']")), [""; 0]);
    }
}

#[test]
fn the_same_network_twice_is_reported_and_a_longer_prefix_is_not() {
    let peers = |first: &str, second: &str| {
        format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '{A}'\nallowed_ips = {first}\n[[peer]]\n\
             id = '{B}'\nallowed_ips = {second}\n"
        )
    };
    let allowed = "(allowed: each network once; a longer prefix inside another is fine)";

    assert_eq!(
        problems_of(&peers(
            "['10.1.0.0/16', '10.2.0.0/16']",
            "['10.3.0.0/16', '10.2.0.0/16']"
        )),
        [format!(
            "sr.toml:8: peer[1].allowed_ips[1]: overlapping allowed_ips: 10.2.0.0/16 is also peer[0].allowed_ips[1] \
             (line 5) {allowed}"
        )]
    );
    assert_eq!(
        problems_of(&peers("['10.1.0.0/16', '10.1.0.0/16']", "['10.3.0.0/16']")),
        [format!(
            "sr.toml:5: peer[0].allowed_ips[1]: listed twice: 10.1.0.0/16 is also peer[0].allowed_ips[0] (line 5) {allowed}"
        )]
    );
    assert_eq!(problems_of(&peers("['10.1.0.0/16']", "['10.1.2.0/24']")), [""; 0]);
}

#[test]
fn a_peer_has_one_section() {
    let text = format!(
        "[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '{A}'\nallowed_ips = ['10.1.0.0/16']\n[[peer]]\n\
         id = '{A}'\nallowed_ips = ['10.2.0.0/16']\n"
    );
    assert_eq!(
        problems_of(&text),
        [format!(
            "sr.toml:7: peer[1].id: {A} is also peer[0].id (line 4) (allowed: one section per peer)"
        )]
    );
}

#[test]
fn what_is_not_a_peer_id_is_reported() {
    let found = problems_of(
        "[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '12D3'\nallowed_ips = ['10.1.0.0/16']\n",
    );
    let [problem] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(
        problem.starts_with("sr.toml:4: peer[0].id: \"12D3\" is not a peer id: "),
        "{problem}"
    );
}

#[test]
fn more_peers_or_prefixes_than_the_tables_hold_are_reported() {
    let peer_ids: Vec<PeerId> = (0..=MAX_PEERS)
        .map(|_| Keypair::generate_ed25519().public().to_peer_id())
        .collect();
    let mut text = "[device]\naddresses = ['10.42.0.1/24']\n".to_owned();
    for (index, id) in peer_ids.iter().enumerate() {
        let net = Ipv4Addr::from(0x0b00_0000 + index as u32);
        writeln!(text, "[[peer]]\nid = '{id}'\nallowed_ips = ['{net}/32']").unwrap();
    }
    assert_eq!(
        problems_of(&text),
        [format!(
            "sr.toml:{}: peer[{MAX_PEERS}]: there are 1025 peers (allowed: at most 1024 peers)",
            3 + 3 * MAX_PEERS
        )]
    );

    let nets: Vec<String> = (0..=MAX_PREFIXES)
        .map(|n| format!("'{}/32'", Ipv4Addr::from(0x0b00_0000 + n)))
        .collect();
    assert_eq!(
        peer_problems(&format!("allowed_ips = [{}]", nets.join(","))),
        [
            "sr.toml:5: peer[0].allowed_ips[16384]: there are 16385 allowed_ips (allowed: at most 16384 of all peers together)"
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

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0x0b00_0000_u32..0x0b00_0100, 24_u8..=32).prop_map(|(bits, len)| IpNet::V4(Ipv4Net::new_assert(
            Ipv4Addr::from(bits),
            len
        ))
        .trunc()),
        (0_u128..64, 120_u8..=128).prop_map(|(low, len)| {
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(0xfd43_u128 << 112 | low), len)).trunc()
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        mtu in 1280_u32..=32_000,
        name in "[a-zA-Z_][a-zA-Z0-9_-]{4,14}",
        host in 1_u8..255,
        nets in proptest::collection::hash_set(any_net(), 1..20),
        port in 1_u16..,
    ) {
        prop_assume!(name != "default");
        let nets: Vec<IpNet> = nets.into_iter().collect();
        let quoted: Vec<String> = nets.iter().map(|net| format!("'{net}'")).collect();
        let text = format!(
            "[device]\nname = '{name}'\nmtu = {mtu}\naddresses = ['10.42.0.{host}/24']\n[[peer]]\nid = '{A}'\n\
             addresses = ['/ip4/192.0.2.{host}/tcp/{port}']\nallowed_ips = [{}]\n",
            quoted.join(", ")
        );

        let config = parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;

        prop_assert_eq!(config.device().name(), name);
        prop_assert_eq!(config.device().mtu(), mtu);
        prop_assert_eq!(config.device().addresses(), [format!("10.42.0.{host}/24").parse::<IpNet>().unwrap()]);
        prop_assert_eq!(config.peers()[0].allowed_ips(), nets);
        let address = format!("/ip4/192.0.2.{host}/tcp/{port}").parse().unwrap();
        prop_assert_eq!(config.peers()[0].addresses(), [address]);
    }

    #[test]
    fn a_network_is_reported_once_for_each_earlier_writing_of_it(
        first in proptest::collection::vec(any_net(), 1..20),
        second in proptest::collection::vec(any_net(), 1..20),
    ) {
        let quoted = |nets: &[IpNet]| nets.iter().map(|net| format!("'{net}'")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '{A}'\nallowed_ips = [{}]\n[[peer]]\nid = '{B}'\n\
             allowed_ips = [{}]\n",
            quoted(&first), quoted(&second)
        );
        let all: Vec<&IpNet> = first.iter().chain(&second).collect();
        let expected = all.iter().enumerate().filter(|(at, net)| all[..*at].contains(net)).count();

        prop_assert_eq!(problems_of(&text).len(), expected);
    }

    #[test]
    fn any_text_gives_a_configuration_or_problems_on_its_lines(text in "([a-z\\[\\]='\".#0-9{},/: \n]|device|peer|addresses){0,80}") {
        let n_lines = text.split('\n').count();
        if let Err(error) = parse(&text) {
            prop_assert!(!error.problems().is_empty());
            for problem in error.problems() {
                prop_assert!((1..=n_lines).contains(&problem.line()), "{}", problem);
            }
        }
    }
}

#[test]
fn the_document_has_every_field_with_its_default() {
    let config = Config::parse("[device]\naddresses = [\"10.42.0.1/24\"]\n", Path::new("sr.toml")).unwrap();
    let (node, workers, connections) = (config.node(), config.workers(), config.connections());
    let (workers_scaling, streams) = (workers.scaling(), config.streams());
    let (workers_scaler, streams_scaler) = (workers_scaling.scaler, streams.scaling().scaler);
    let seconds = |duration: std::time::Duration| format!("`{}s`", duration.as_secs());
    let rows = [
        ("`node.key`", format!("`{}`", node.key().display())),
        (
            "`node.listen`",
            "TCP and QUIC on port 4001, IPv4 and IPv6".to_owned(),
        ),
        ("`node.control`", format!("`{}`", node.control().display())),
        ("`device.name`", format!("`{}`", config.device().name())),
        ("`device.addresses`", "required".to_owned()),
        ("`device.mtu`", config.device().mtu().to_string()),
        (
            "`workers.min`, `workers.initial`, `workers.max`",
            format!(
                "{}, {}, {}",
                workers_scaler.min,
                workers.initial(),
                workers_scaler.max
            ),
        ),
        (
            "`workers.queue_size`",
            "by [memory](operations.md#memory), up to 2000".to_owned(),
        ),
        ("`workers.threads`", "half the CPUs".to_owned()),
        ("`workers.scale_interval`", seconds(workers_scaling.interval)),
        ("`workers.scale_up`", workers_scaler.scale_up.to_string()),
        ("`workers.scale_down`", workers_scaler.scale_down.to_string()),
        ("`connections.ttl`", seconds(connections.ttl())),
        (
            "`connections.cleanup_interval`",
            seconds(connections.cleanup_interval()),
        ),
        (
            "`connections.max_entries`",
            "by [memory](operations.md#memory), up to 262144".to_owned(),
        ),
        ("`connections.shards`", connections.shards().to_string()),
        (
            "`streams.min_per_peer`, `streams.max_per_peer`",
            format!("{}, {}", streams_scaler.min, streams_scaler.max),
        ),
        (
            "`streams.throughput_threshold`",
            streams.throughput_threshold().to_string(),
        ),
        ("`streams.scale_interval`", seconds(streams.scaling().interval)),
        ("`streams.scale_up`", streams_scaler.scale_up.to_string()),
        ("`streams.scale_down`", streams_scaler.scale_down.to_string()),
        ("`transport.prefer`", "`[\"tcp\", \"quic\"]`".to_owned()),
        (
            "`transport.connections_per_peer`",
            "`workers.threads`, up to 4".to_owned(),
        ),
        ("`transport.hold_time`", seconds(config.transport().hold_time())),
        ("`transport.dscp`", "0".to_owned()),
        ("`transport.fwmark`", "8275 (0x2053)".to_owned()),
        ("`device.clamp_mss`", config.device().clamp_mss().to_string()),
        (
            "`device.on_stop`",
            "see [stopping](operations.md#packets-of-a-node-that-does-not-run)".to_owned(),
        ),
        ("`exit.serve`", config.exit().serve().to_string()),
        (
            "`peer.override`",
            config.peers().iter().any(|peer| peer.overrides()).to_string(),
        ),
        ("`discovery.mdns`", config.discovery().mdns().to_string()),
        ("`discovery.dht`", config.discovery().dht().to_string()),
        ("`discovery.announce`", "what it listens on".to_owned()),
        ("`metrics.listen`", "none".to_owned()),
        ("`metrics.hosts`", "none".to_owned()),
        ("`peer.id`", "required".to_owned()),
        ("`peer.addresses`", "none".to_owned()),
        ("`peer.allowed_ips`", "required".to_owned()),
        ("`peer.rate`", "none".to_owned()),
    ];

    let document = include_str!("../../../docs/configuration.md");
    for (field, default) in rows {
        assert!(
            document.contains(&format!("\n| {field} | {default} | ")),
            "{field}, {default}"
        );
    }
}

#[test]
fn numbers_of_workers_that_are_not_written_give_way() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[workers]\n{text}");
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
        let workers = config.workers();
        let scaler = workers.scaling().scaler;
        (scaler.min, workers.initial(), scaler.max)
    };

    assert_eq!(parse(""), (4, 8, 32));
    assert_eq!(parse("max = 2"), (2, 2, 2));
    assert_eq!(parse("min = 16"), (16, 16, 32));
    assert_eq!(parse("initial = 5"), (4, 5, 32));
}

#[test]
fn durations_and_shares_out_of_range_are_reported() {
    let text = "[device]\naddresses = [\"10.42.0.1/24\"]\n[workers]\nscale_interval = \"1ms\"\nscale_up = 1.5\n\
                scale_down = 0.9\n[connections]\nttl = \"soon\"\ncleanup_interval = 5\nmax_entries = 100\n";

    let error = Config::parse(text, Path::new("sr.toml")).unwrap_err();

    let allowed = "(allowed: a duration from \"100ms\" to \"1h\", such as \"5s\")";
    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert_eq!(
        lines[0],
        format!("sr.toml:4: workers.scale_interval: 1ms is out of range {allowed}")
    );
    assert!(lines[1].starts_with("sr.toml:5: workers.scale_up: is out of range (allowed: a number above 0"));
    assert!(
        lines[2].starts_with("sr.toml:6: workers.scale_down: scale_down, 0.9, is not below scale_up, 0.75")
    );
    assert!(lines[3].starts_with("sr.toml:8: connections.ttl: \"soon\" is no duration: "));
    assert_eq!(
        lines[4],
        format!("sr.toml:9: connections.cleanup_interval: expected a string, found an integer {allowed}")
    );
    assert!(lines[5].starts_with("sr.toml:10: connections.max_entries: 100 is out of range"));
}

#[test]
fn the_preferred_transport_is_dialled_first_and_each_ones_addresses_keep_their_order() {
    let [a, b] = ["/ip4/192.0.2.2/tcp/4001", "/ip4/192.0.2.3/tcp/4001"];
    let [c, d] = [
        "/ip4/192.0.2.2/udp/4001/quic-v1",
        "/ip4/192.0.2.3/udp/4001/quic-v1",
    ];
    let dialled = |transport: &str| {
        let text = format!(
            "[device]\naddresses = [\"10.42.0.1/24\"]\n{transport}\n[[peer]]\nid = \"{}\"\n\
             addresses = [\"{c}\", \"{a}\", \"{b}\", \"{d}\"]\nallowed_ips = [\"10.42.0.2/32\"]\n",
            A
        );
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
        let addresses = config.peers()[0].addresses().iter();
        addresses.map(ToString::to_string).collect::<Vec<_>>()
    };

    assert_eq!(dialled(""), [a, b, c, d]);
    assert_eq!(dialled("[transport]\nprefer = [\"tcp\"]"), [a, b, c, d]);
    assert_eq!(dialled("[transport]\nprefer = [\"quic\", \"tcp\"]"), [c, d, a, b]);
}

#[test]
fn wrong_transports_and_stream_numbers_are_reported() {
    let text = "[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\nprefer = [\"udp\", \"tcp\", \"tcp\"]\n\
                [streams]\nmin_per_peer = 4\nmax_per_peer = 3\nscale_down = 0.9\nthroughput_threshold = 0\n";

    let error = Config::parse(text, Path::new("sr.toml")).unwrap_err();

    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(
        lines[0].starts_with("sr.toml:4: transport.prefer[0]: \"udp\" is no transport (allowed: "),
        "{said}"
    );
    assert!(
        lines[1].starts_with("sr.toml:4: transport.prefer[2]: \"tcp\" is listed twice"),
        "{said}"
    );
    assert!(
        lines[2].starts_with("sr.toml:6: streams.min_per_peer: 4 is more than streams.max_per_peer, 3"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("sr.toml:8: streams.scale_down: scale_down, 0.9, is not below scale_up, 0.8"),
        "{said}"
    );
    assert!(
        lines[4].starts_with("sr.toml:9: streams.throughput_threshold: 0 is out of range"),
        "{said}"
    );
}

#[test]
fn a_peer_has_as_many_connections_as_there_are_threads_unless_it_is_said() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };

    let unsaid = parse("").unwrap();
    let said = parse("connections_per_peer = 2").unwrap();
    let wrong = parse("connections_per_peer = 5").unwrap_err();

    let of = |config: &Config| [1, 3, 64].map(|n_threads| config.transport().connections_per_peer(n_threads));
    assert_eq!(of(&unsaid), [1, 3, 4]);
    assert_eq!(of(&said), [2, 2, 2]);
    assert_eq!(
        wrong.problems()[0].to_string(),
        "sr.toml:4: transport.connections_per_peer: 5 is out of range (allowed: an integer from 1 to 4)"
    );
}

#[test]
fn packets_wait_for_a_peer_as_long_as_is_said() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };
    let seconds = |text: &str| parse(text).unwrap().transport().hold_time().as_secs();
    let wrong = |text: &str| parse(text).unwrap_err().problems()[0].to_string();

    assert_eq!(seconds(""), 3);
    assert_eq!(seconds("hold_time = \"0s\""), 0);
    assert_eq!(seconds("hold_time = \"1m\""), 60);
    assert_eq!(
        wrong("hold_time = \"61s\""),
        "sr.toml:4: transport.hold_time: \"61s\" is out of range (allowed: a duration from \"0s\" to \"60s\", such as \"3s\")"
    );
    assert!(wrong("hold_time = \"soon\"").contains("\"soon\" is no duration: "));
}

#[test]
fn a_node_that_says_nothing_has_the_default_router_but_for_what_its_memory_sets() {
    let router = |mib: u64, sections: &str| {
        let file = format!("[device]\naddresses = ['10.42.0.1/24']\n{sections}");
        let sizes = Some(Sizes::within(mib << 20));
        let config = Config::parse_sized(&file, Path::new("sr.toml"), &[], sizes).unwrap();
        config.router().clone()
    };
    let sizes = |router: StreamRouterConfig| {
        (
            router.connections().max_entries(),
            router.workers().queue_size(),
            router.workers().ring_bytes(),
        )
    };

    let usual = StreamRouterConfig::default();
    assert_eq!(sizes(usual.clone()), (262_144, 1000, 2 << 20));
    assert_eq!(
        router(2048, "[workers]\nqueue_size = 1000\n"),
        usual,
        "the rest is the same"
    );
    assert_eq!(sizes(router(2048, "")), (262_144, 1024, 2 << 20));
    assert_eq!(sizes(router(4096, "")), (262_144, 2000, 4 << 20));
    assert_eq!(sizes(router(256, "")), (32_768, 256, 512 << 10));
    assert_eq!(
        sizes(router(
            256,
            "[connections]\nmax_entries = 5000\n[workers]\nmin = 2\nqueue_size = 128\n"
        )),
        (5000, 128, 256 << 10)
    );
    assert_eq!(
        sizes(router(256, "[connections]\nshards = 2\n")).0,
        32_768,
        "a section may say other things"
    );
}

#[test]
fn a_section_that_is_none_is_reported_whatever_sizes_follow_from_memory() {
    let file = "connections = 3\n[device]\naddresses = ['10.42.0.1/24']\n";

    let error = Config::parse_sized(file, Path::new("sr.toml"), &[], Some(Sizes::within(0))).unwrap_err();

    assert_eq!(
        error.to_string(),
        "sr.toml:1: connections: expected a table, found an integer (allowed: a [connections] section)"
    );
}

#[test]
fn a_nodes_file_says_the_same_as_the_library_in_the_same_words() {
    let sections = r#"
        [workers]
        min = 2
        max = 16
        initial = 3
        queue_size = 500
        threads = 2
        scale_interval = "1s 500ms"
        scale_up = 0.7
        scale_down = 0.2
        [connections]
        ttl = "30s"
        cleanup_interval = "10s"
        max_entries = 8192
        shards = 4
        [streams]
        min_per_peer = 2
        max_per_peer = 5
        throughput_threshold = 1000
        scale_interval = "2s"
        scale_up = 0.9
        scale_down = 0.4
    "#;

    let deserialized: StreamRouterConfig = toml::from_str(sections).unwrap();
    let file = format!("{sections}\n[device]\naddresses = ['10.42.0.1/24']\n");
    let of_node = Config::parse(&file, Path::new("sr.toml")).unwrap();

    assert_ne!(deserialized, StreamRouterConfig::default());
    assert_eq!(*of_node.router(), deserialized);
}

#[test]
fn a_rate_and_a_mark_have_bounds_and_by_default_there_are_none() {
    use stream_router::p2p::Dscp;

    let text = |dscp: &str, rate: &str| {
        format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[transport]\n{dscp}\n\
             [[peer]]\nid = '{A}'\nallowed_ips = ['10.42.0.2/32']\n{rate}\n"
        )
    };
    let read = |dscp, rate| {
        let config = parse(&text(dscp, rate)).unwrap();
        (config.transport().dscp(), config.peers()[0].rate().map(u32::from))
    };

    assert_eq!(read("", ""), (Dscp::default(), None));
    assert_eq!(
        read("dscp = 46", "rate = 8000"),
        (Dscp::new(46).unwrap(), Some(8000))
    );
    assert_eq!(
        problems_of(&text("dscp = 64", "rate = 7999")),
        [
            "sr.toml:4: transport.dscp: 64 is out of range (allowed: an integer from 0 to 63)",
            "sr.toml:8: peer[0].rate: 7999 is out of range (allowed: an integer from 8000 to 4294967295)"
        ]
    );
}

#[test]
fn sockets_are_marked_unless_it_is_said_that_they_are_not_and_then_no_network_may_need_it() {
    let text = |fwmark: &str, net: &str, rest: &str| {
        format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[transport]\n{fwmark}\n\
             [[peer]]\nid = '{A}'\naddresses = ['/ip4/192.0.2.2/tcp/4001']\nallowed_ips = ['{net}']\n{rest}\n"
        )
    };
    let mark = |fwmark: &str| {
        let config = parse(&text(fwmark, "10.42.0.2/32", "")).unwrap();
        config.transport().fwmark().map(u32::from)
    };

    assert_eq!(mark(""), Some(0x2053));
    assert_eq!(mark("fwmark = 0xCA6C"), Some(51820));
    assert_eq!(mark("fwmark = 0"), None);
    let allowed = "(allowed: networks without the peers' own addresses and without override, or a transport.fwmark \
                   above 0)";
    for net in ["0.0.0.0/0", "128.0.0.0/1", "192.0.0.0/8"] {
        assert!(parse(&text("", net, "")).is_ok(), "{net}");
        assert_eq!(
            problems_of(&text("fwmark = 0", net, "")),
            [format!(
                "sr.toml:8: peer[0].allowed_ips[0]: {net} would take the node's own packets to peers as well, as \
                 transport.fwmark is 0 {allowed}"
            )]
        );
    }
    assert_eq!(
        problems_of(&text("fwmark = 0", "10.42.0.2/32", "override = true")),
        [format!(
            "sr.toml:8: peer[0].allowed_ips[0]: 10.42.0.2/32 cannot go before the host's own networks, as \
             transport.fwmark is 0 {allowed}"
        )]
    );
}

#[test]
fn what_a_stop_leaves_is_one_of_two_if_it_is_said() {
    let on_stop = |text: &str| {
        let config = parse(&format!("[device]\naddresses = ['10.42.0.1/24']\n{text}\n")).unwrap();
        config.device().on_stop()
    };

    assert_eq!(on_stop(""), None);
    assert_eq!(on_stop("on_stop = 'block'"), Some(OnStop::Block));
    assert_eq!(on_stop("on_stop = 'remove'"), Some(OnStop::Remove));
    assert_eq!(
        problems_of("[device]\naddresses = ['10.42.0.1/24']\non_stop = 'keep'\n"),
        ["sr.toml:3: device.on_stop: \"keep\" is neither (allowed: \"block\" or \"remove\")"]
    );
}
