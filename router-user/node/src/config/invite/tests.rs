//! Invites there and back, and everything that is none.

use proptest::collection::{hash_set, vec};
use proptest::prelude::*;

use super::*;

const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn id() -> PeerId {
    ID.parse().expect("a peer id")
}

fn invite(addresses: &[&str], allowed_ips: &[&str]) -> Result<Invite, InviteError> {
    let addresses = addresses.iter().map(|text| text.parse().expect("a multiaddr"));
    let allowed_ips = allowed_ips.iter().map(|text| text.parse().expect("a prefix"));
    Invite::new(id(), addresses.collect(), allowed_ips.collect())
}

fn example() -> Invite {
    invite(
        &["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"],
        &["10.42.0.1/32", "fd42::1/128", "0.0.0.0/0", "192.168.7.0/24"],
    )
    .expect("an invite")
}

/// A text whose checksum fits, whatever it holds.
fn sealed(content: &[u8]) -> String {
    sealed_as(VERSION, content)
}

fn sealed_as(version: char, content: &[u8]) -> String {
    let bytes = [content, &checksum(version, content)].concat();
    format!("sr{version}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn wrong(text: &str) -> String {
    text.parse::<Invite>().expect_err("no invite").to_string()
}

#[test]
fn the_form_of_an_invite_stays_what_it_is() {
    let text = example().to_string();

    assert_eq!(
        text,
        "sr1JgAkCAESIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdopAgDAAAIBD6EDIAENuAAAAAAAAAAAAAAAAQ-hBAQgCioAAQaA_UIAAAAAAAAAAAAAAAAAAQQABBjAqAdnhcLU"
    );
    assert_eq!(text.parse(), Ok(example()));
}

#[test]
fn an_invite_with_a_name_is_of_the_second_version() {
    let named = example().with_name("berlin".to_owned()).unwrap();
    let text = named.to_string();

    assert_eq!(
        text,
        "sr2JgAkCAESIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdopAgDAAAIBD6EDIAENuAAAAAAAAAAAAAAAAQ-hBAQgCioAAQaA_UIAAAAAAAAAAAAAAAAAAQQABBjAqAcGYmVybGlusFeIKg"
    );
    assert_eq!(text.parse(), Ok(named.clone()));
    assert_eq!(
        named.section(),
        example()
            .section()
            .replacen("[[peer]]\n", "[[peer]]\nname = \"berlin\"\n", 1)
    );
    let other = named
        .with_allowed_ips(vec!["10.9.0.0/16".parse().unwrap()])
        .unwrap();
    assert_eq!(other.name(), Some("berlin"));
}

#[test]
fn a_name_that_no_node_can_have_is_refused() {
    let content = |name: &[u8]| [&example().bytes()[..], &[name.len() as u8], name].concat();
    for (name, said) in [
        (&b""[..], "\"\" is no name"),
        (b"a\nb", "is no name"),
        (b"10.0.0.1", "is an address"),
        (&[0xff], "no text"),
        (&[b'a'; 64], "is no name"),
    ] {
        let text = sealed_as(VERSION_NAMED, &content(name));
        assert!(wrong(&text).contains(said), "{said}: {}", wrong(&text));
    }
    // A name in the first version, and none in the second.
    assert!(wrong(&sealed(&content(b"berlin"))).contains("goes on behind its end"));
    let bare = sealed_as(VERSION_NAMED, &example().bytes());
    assert!(wrong(&bare).contains("ends before its end"));
    assert!(
        sealed_as(VERSION_NAMED, &content(b"berlin"))
            .parse::<Invite>()
            .is_ok()
    );
}

#[test]
fn the_section_is_the_peer_in_a_configuration() {
    assert_eq!(
        example().section(),
        format!(
            "[[peer]]\nid = \"{ID}\"\n\
             addresses = [\"/ip4/192.0.2.1/tcp/4001\", \"/ip6/2001:db8::1/udp/4001/quic-v1\"]\n\
             allowed_ips = [\"10.42.0.1/32\", \"fd42::1/128\", \"0.0.0.0/0\", \"192.168.7.0/24\"]\n"
        )
    );
}

#[test]
fn the_peer_id_behind_an_address_is_taken_off() {
    let named = format!("/ip4/192.0.2.1/tcp/4001/p2p/{ID}");

    let invite = invite(&[&named], &["10.42.0.1/32"]).unwrap();

    assert_eq!(invite.addresses()[0].to_string(), "/ip4/192.0.2.1/tcp/4001");
}

#[test]
fn an_address_may_begin_with_a_name() {
    let addresses = [
        "/dns/vpn.example.org/tcp/4001",
        "/dns4/vpn.example.org/udp/4001/quic-v1",
        "/dns6/vpn.example.org./tcp/4001",
        "/dnsaddr/example.org",
        "/ip4/192.0.2.1/tcp/4001",
    ];
    let nameless = invite(&addresses, &["10.42.0.1/32"]).expect("an invite");
    let named = nameless.clone().with_name("office".to_owned()).expect("a name");
    for invite in [nameless, named] {
        let text = invite.to_string();

        assert!(text.starts_with("sr3"), "{text}");
        assert_eq!(text.parse(), Ok(invite));
    }
}

#[test]
fn an_invite_says_that_its_node_relays() {
    let nameless = example().with_relaying(true);
    let named = nameless.clone().with_name("oslo".to_owned()).expect("a name");
    for invite in [nameless, named] {
        let text = invite.to_string();

        assert!(text.starts_with("sr4"), "{text}");
        assert_eq!(text.parse(), Ok(invite.clone()));
        let other = invite.with_allowed_ips(vec!["10.9.0.0/16".parse().unwrap()]);
        assert!(other.unwrap().relays());
    }
    assert!(!example().relays());
}

#[test]
fn the_longest_invite_is_read() {
    let names = |n: usize| {
        format!(
            "/dns/{}{n:02}.{}/tcp/4001",
            "a".repeat(61),
            ["b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".")
        )
    };
    let addresses: Vec<String> = (0..16).map(names).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let nets: Vec<String> = (0..64).map(|n| format!("fd42::{n:x}/128")).collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let name = "n".repeat(63);
    let invite = invite(&addresses, &nets).and_then(|invite| invite.with_name(name));
    let invite = invite.expect("an invite").with_relaying(true);

    assert_eq!(invite.to_string().parse(), Ok(invite));
}

#[test]
fn what_no_peer_can_have_is_refused() {
    let tcp = "/ip4/192.0.2.1/tcp/4001";
    let net = "10.42.0.1/32";
    for (addresses, nets, said) in [
        (
            &["/ip4/0.0.0.0/tcp/4001"][..],
            &[net][..],
            "0.0.0.0 is not the address of a host",
        ),
        (&["/ip4/192.0.2.1/tcp/0"], &[net], "port 0 cannot be dialled"),
        (
            &["/dns4/example..org/tcp/1"],
            &[net],
            "not a name that DNS can have",
        ),
        (&[tcp, tcp], &[net], "is there twice"),
        (&[tcp; 17], &[net], "17 addresses"),
        (&[tcp], &[], "0 prefixes"),
        (&[tcp], &[net, net], "10.42.0.1/32 is there twice"),
        (&[tcp], &["10.42.0.1/24"], "host bits set"),
        (&[tcp], &["127.0.0.0/8"], "loopback"),
    ] {
        let error = invite(addresses, nets).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_text_that_is_no_invite_is_told_apart_from_a_damaged_one() {
    let text = example().to_string();
    let newer = text.replacen("sr1", "sr5", 1);
    let broken = text.replacen("A", "B", 1);
    let spaced = format!("{} {}", &text[..20], &text[20..]);
    for (text, said) in [
        ("", "this is no invite"),
        ("12D3KooW", "this is no invite"),
        ("sr", "this is no invite"),
        ("sr?", "this is no invite"),
        (newer.as_str(), "of version 5"),
        ("sr1", "damaged or cut"),
        ("sr1AAAA", "damaged or cut"),
        (&text[..text.len() - 1], "damaged or cut"),
        (&text[..text.len() - 4], "damaged or cut"),
        (&format!("{text}A"), "damaged or cut"),
        (&broken, "damaged or cut"),
        (&spaced, "character 21 is none"),
        (&format!("{text}="), "is none of an invite"),
        (&format!("sr1{}", "A".repeat(7422)), "7425 characters"),
    ] {
        assert!(wrong(text).contains(said), "{text}: {}", wrong(text));
    }
}

#[test]
fn a_content_that_makes_no_sense_is_refused_though_its_checksum_fits() {
    let id = id().to_bytes();
    let head = [&[id.len() as u8], &id[..]].concat();
    let with = |rest: &[u8]| sealed(&[&head, rest].concat());
    for (text, said) in [
        (sealed(&[]), "ends before its end"),
        (sealed(&[2, 0x55, 0]), "peer id"),
        (sealed(&[200, 0, 0]), "ends before its end"),
        (with(&[1, 64, 192, 0, 2, 1, 0x0f, 0xa1, 1, 4, 8, 10]), "kind 64"),
        (
            with(&[1, 32 | 2, 192, 0, 2, 1, 0x0f, 0xa1, 1, 4, 8, 10]),
            "not in its one form",
        ),
        (with(&[1, 4 | 8 | 1, 1, b'a', 0x0f, 0xa1, 1, 4, 8, 10]), "kind 13"),
        (with(&[1, 4, 0, 0x0f, 0xa1, 1, 4, 8, 10]), "not a name"),
        (with(&[1, 4, 200, b'a']), "ends before its end"),
        (
            with(&[1, 4, 1, b'a', 0x0f, 0xa1, 1, 4, 8, 10]),
            "not in its one form",
        ),
        (with(&[1, 0, 192, 0]), "ends before its end"),
        (
            with(&[1, 0, 0, 0, 0, 0, 0x0f, 0xa1, 1, 4, 8, 10]),
            "0.0.0.0 is not the address",
        ),
        (with(&[0, 0]), "0 prefixes"),
        (with(&[0, 1, 5, 8, 10]), "family 5"),
        (with(&[0, 1, 4, 33, 10, 0, 0, 0, 0]), "a prefix of 33 bits"),
        (with(&[0, 1, 4, 32, 10]), "ends before its end"),
        (with(&[0, 1, 4, 7, 11]), "host bits set"),
        (with(&[0, 1, 4, 8, 127]), "loopback"),
        (with(&[0, 2, 4, 8, 10, 4, 8, 10]), "is there twice"),
        (with(&[0, 1, 4, 8, 10, 0]), "goes on behind its end"),
    ] {
        assert!(wrong(&text).contains(said), "{said}: {}", wrong(&text));
    }
    assert!(with(&[0, 1, 4, 8, 10]).parse::<Invite>().is_ok());
}

fn any_address() -> impl Strategy<Value = Multiaddr> {
    // Unicast addresses of both families.
    let ip = prop_oneof![
        (1..=223_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d])),
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0x20; 16];
            octets[1..].copy_from_slice(&rest);
            IpAddr::from(octets)
        }),
    ];
    let name = ("[a-z0-9_-]{1,63}(\\.[a-z0-9-]{1,40}){0,4}\\.?", 0..4).prop_map(|(name, kind)| {
        let name = name.into();
        Multiaddr::from(match kind {
            0 => Protocol::Dns(name),
            1 => Protocol::Dns4(name),
            2 => Protocol::Dns6(name),
            _ => Protocol::Dnsaddr(name),
        })
    });
    let host = prop_oneof![ip.prop_map(Multiaddr::from), name];
    (host, 1..=u16::MAX, 0..3).prop_map(|(host, port, kind)| {
        if matches!(host.iter().next(), Some(Protocol::Dnsaddr(_))) {
            host
        } else {
            match kind {
                0 => host.with(Protocol::Udp(port)).with(Protocol::QuicV1),
                1 => host.with(Protocol::Tcp(port)).with(Protocol::Tls),
                _ => host.with(Protocol::Tcp(port)),
            }
        }
    })
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[u8; 3]>(), 0..=32_u8).prop_map(|([b, c, d], len)| (IpAddr::from([10, b, c, d]), len));
    let v6 = (any::<[u8; 15]>(), 0..=128_u8).prop_map(|(rest, len)| {
        let mut octets = [0xfd; 16];
        octets[1..].copy_from_slice(&rest);
        (IpAddr::from(octets), len)
    });
    prop_oneof![v4, v6].prop_map(|(ip, len)| IpNet::new(ip, len).expect("a length of the family").trunc())
}

proptest! {
    #[test]
    fn every_invite_is_read_back_and_has_one_form(
        seed in any::<[u8; 32]>(),
        addresses in hash_set(any_address(), 0..=MAX_ADDRESSES),
        allowed_ips in hash_set(any_prefix(), 1..=MAX_PREFIXES),
        name in proptest::option::of("[a-z]([a-z0-9.-]{0,61}[a-z])?"),
    ) {
        let key = libp2p::identity::Keypair::ed25519_from_bytes(seed).expect("a seed");
        let invite = Invite::new(
            key.public().to_peer_id(),
            addresses.into_iter().collect(),
            allowed_ips.into_iter().collect(),
        ).expect("an invite");
        let invite = match name {
            Some(name) => invite.with_name(name).expect("a name"),
            None => invite,
        };

        let text = invite.to_string();

        prop_assert!(text.len() <= MAX_CHARS);
        let back = text.parse::<Invite>();
        prop_assert_eq!(back.as_ref(), Ok(&invite));
        prop_assert_eq!(back.expect("an invite").to_string(), text);
    }

    #[test]
    fn no_change_of_a_character_goes_unseen(at in 0_usize..200, to in "[A-Za-z0-9_-]") {
        let text = example().to_string();
        let at = at % text.len();
        let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);

        prop_assert_eq!(changed.parse::<Invite>().is_ok(), changed == text);
    }

    #[test]
    fn bytes_of_any_kind_are_refused_or_have_one_form(content in vec(any::<u8>(), 0..200)) {
        let id = id().to_bytes();
        let framed = [&[id.len() as u8], &id[..], &content].concat();
        for text in [sealed(&content), sealed(&framed)] {
            if let Ok(invite) = text.parse::<Invite>() {
                prop_assert_eq!(invite.to_string(), text);
            }
        }
    }

    #[test]
    fn a_text_of_any_kind_is_no_panic(text in ".*") {
        let _ = text.parse::<Invite>();
        let _ = format!("sr1{text}").parse::<Invite>();
    }
}
