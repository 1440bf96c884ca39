//! Peers: who and where they are, what is behind them, and how many there may be.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::*;
use router_common::peer::{MAX_PEERS, MAX_PREFIXES};

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
            "sr.toml:6: peer[0].addresses[0]: {wrong} (allowed: /ip4/ADDRESS/tcp/PORT, /ip4/ADDRESS/tcp/PORT/tls or \
             /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6, /dns, /dns4 or /dns6 and a name, or /dnsaddr/NAME, perhaps \
             followed by /p2p/ and the id of this peer; or /p2p/, the id of another peer and /p2p-circuit)"
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

    // A relay leads to this node, and has to be reached itself.
    let relay = format!("[[peer]]\nname = 'relay'\nid = '{B}'\nallowed_ips = ['10.42.0.3/32']\n");
    let via = |address: &str| format!("{text}{relay}{address}[relay]\nvia = ['relay']\n");
    assert_eq!(
        problems_of(&via("addresses = ['/ip4/192.0.2.2/tcp/1']\n")),
        [""; 0]
    );
    assert_eq!(
        problems_of(&via("")),
        [
            "sr.toml:8: peer[1].addresses: no side can dial: the peer has no address and node.listen is empty (allowed: \
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
            "sr.toml:{}: peer[{MAX_PEERS}]: there are 16385 peers (allowed: at most 16384 peers)",
            3 + 3 * MAX_PEERS
        )]
    );

    let nets: Vec<String> = (0..=MAX_PREFIXES)
        .map(|n| format!("'{}/32'", Ipv4Addr::from(0x0b00_0000 + n)))
        .collect();
    assert_eq!(
        peer_problems(&format!("allowed_ips = [{}]", nets.join(","))),
        [
            "sr.toml:5: peer[0].allowed_ips[65536]: there are 65537 allowed_ips (allowed: at most 65536 of all peers together)"
        ]
    );
}
