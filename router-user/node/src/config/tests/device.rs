//! Device and its addresses.

use super::*;

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
            "10.42.0.1/0",
            "10.42.0.1/0 has every address on its link; what goes by default to a peer is 0.0.0.0/0 or ::/0 in its allowed_ips",
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
