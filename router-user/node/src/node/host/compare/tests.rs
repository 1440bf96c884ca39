use std::path::Path;

use super::*;
use crate::config::Config;
use crate::device::{LinkState, RouteTarget};
use crate::node::exit_host::OffSetting;
use crate::node::gateways::GatewayPlace;

const INDEX: u32 = 7;
const LAN: u32 = 3;
const EGRESS: u32 = 41;
const GATEWAY: u32 = 42;
const ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn wanted() -> Wanted {
    let text = "[device]\nname = 'sr0'\naddresses = ['10.42.0.1/24', '10.42.0.7/24', 'fd42::1/64']\nmtu = 1420\n[[peer]]\n\
                id = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'\n\
                allowed_ips = ['10.9.0.0/16', 'fd09::/64', '0.0.0.0/0']\n";
    let config = Config::parse(text, Path::new("sr.toml")).unwrap();
    Wanted {
        hook: Some(EGRESS),
        gateways: vec!["lan0".to_owned()],
        pins: true,
        ..Wanted::of(&config, INDEX)
    }
}

fn link(index: u32, name: &str) -> LinkState {
    LinkState {
        index,
        name: name.to_owned(),
        up: true,
        mtu: 1420,
        controller: None,
        is_tun: true,
        ipv6_autoconfiguration: Some(false),
        xdp: Vec::new(),
        ethernet_address: None,
    }
}

fn filter(priority: u16, program: Option<u32>) -> TcFilter {
    TcFilter {
        priority,
        handle: 1,
        kind: "bpf".to_owned(),
        program,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// What the kernel has when all is as it is wanted.
fn found(wanted: &Wanted) -> Found {
    let address = |net: &IpNet, secondary| AddressState {
        net: *net,
        secondary,
        usable: true,
    };
    let addresses = wanted.device.addresses.iter();
    let local = |net: &IpNet| Route {
        target: RouteTarget::Local(INDEX),
        table: 255,
        ..Route::to_interface(INDEX, IpNet::from(net.addr()))
    };
    // The kernel's choice of a metric.
    let as_seen = |route: &Route| Route {
        metric: route.metric.or(Some(1024)),
        ..*route
    };
    Found {
        link: link(INDEX, "sr0"),
        ipv6_disabled: Some(false),
        addresses: addresses
            .clone()
            .map(|net| address(net, *net == self::net("10.42.0.7/24")))
            .collect(),
        routes: Some(
            wanted
                .all_routes()
                .iter()
                .map(as_seen)
                .chain(addresses.map(local))
                .collect(),
        ),
        rules: wanted.rules.iter().copied().map(SeenRule::from).collect(),
        filters: vec![filter(1, Some(EGRESS))],
        before_filters: Vec::new(),
        ingress_filters: Vec::new(),
        ingress_programs: Vec::new(),
        nft: (NftRules::default(), 0),
        settings: (Vec::new(), Vec::new()),
        gateways: vec![Some(FoundGateway {
            link: LinkState {
                ethernet_address: Some(ADDRESS),
                ..link(LAN, "lan0")
            },
            programs: vec![GATEWAY],
        })],
        places: vec![GatewayPlace {
            name: "lan0".to_owned(),
            index: LAN,
            address: ADDRESS,
            program: Some(GATEWAY),
            in_table: true,
        }],
        missing_pins: Vec::new(),
    }
}

/// Returns what is the matter, in words, and the remedies, once `change` has been made to what is as wanted.
fn after(change: impl FnOnce(&mut Found)) -> (Vec<String>, Vec<Remedy>) {
    let wanted = wanted();
    let mut found = found(&wanted);
    change(&mut found);
    let differences = differences(&wanted, &found).into_iter();
    differences
        .map(|difference| {
            (
                format!("{} {}", difference.thing, difference.seen),
                difference.remedy,
            )
        })
        .unzip()
}

fn one(change: impl FnOnce(&mut Found)) -> (String, Remedy) {
    let (mut seen, mut remedies) = after(change);
    assert_eq!(seen.len(), 1, "{seen:?}");
    (seen.remove(0), remedies.remove(0))
}

#[test]
fn what_is_as_wanted_differs_in_nothing() {
    assert_eq!(after(|_| {}).0, Vec::<String>::new());
    // Others may have more.
    let more = after(|found| {
        found.addresses.push(AddressState {
            net: net("10.77.0.1/24"),
            secondary: false,
            usable: true,
        });
        found.filters.push(filter(2, None));
        found
            .routes
            .as_mut()
            .unwrap()
            .push(Route::to_interface(INDEX, net("10.77.0.0/24")));
    });
    assert_eq!(more.0, Vec::<String>::new());
}

#[test]
fn the_device_gets_back_its_name_state_mtu_and_independence() {
    type Change = fn(&mut LinkState);
    let cases: [(&str, Change, Remedy); 5] = [
        (
            "the name of the device is x0 instead of sr0",
            |link| link.name = "x0".to_owned(),
            Remedy::Rename,
        ),
        (
            "the state of the device is down",
            |link| link.up = false,
            Remedy::SetUp,
        ),
        (
            "the MTU of the device is 1000 instead of 1420",
            |link| link.mtu = 1000,
            Remedy::SetMtu,
        ),
        (
            "the device's independence is lost to the interface with index 9, which it was put into",
            |link| link.controller = Some(9),
            Remedy::Release,
        ),
        (
            "IPv6 autoconfiguration of the device is on",
            |link| link.ipv6_autoconfiguration = Some(true),
            Remedy::DisableAutoconfiguration(Vec::new()),
        ),
    ];
    for (seen, change, remedy) in cases {
        // A device that is down has no less than its state.
        assert_eq!(one(|found| change(&mut found.link)), (seen.to_owned(), remedy));
    }
    assert_eq!(
        one(|found| found.ipv6_disabled = Some(true)),
        (
            "IPv6 of the device is off (sysctl net.ipv6.conf.sr0.disable_ipv6)".to_owned(),
            Remedy::EnableIpv6
        )
    );
    // What came of it goes too.
    let made = net("fe80::7/64");
    let (_, remedy) = one(|found| {
        found.link.ipv6_autoconfiguration = Some(true);
        found.addresses.push(AddressState {
            net: made,
            secondary: false,
            usable: true,
        });
    });
    assert_eq!(remedy, Remedy::DisableAutoconfiguration(vec![made]));
}

#[test]
fn ipv4_addresses_of_a_network_are_put_back_together_and_in_order() {
    let (first, second, v6) = (net("10.42.0.1/24"), net("10.42.0.7/24"), net("fd42::1/64"));
    let lose = |found: &mut Found, gone: IpNet| found.addresses.retain(|state| state.net != gone);

    let (seen, remedies) = after(|found| {
        lose(found, first);
        found.addresses[0].secondary = false;
    });
    assert_eq!(
        seen,
        [
            "the address 10.42.0.1/24 is missing",
            "the address 10.42.0.7/24 has lost its place"
        ]
    );
    assert_eq!(
        remedies,
        [
            Remedy::Addresses {
                remove: vec![second],
                add: vec![first, second]
            },
            Remedy::Addresses {
                remove: Vec::new(),
                add: Vec::new()
            }
        ]
    );
    assert_eq!(
        one(|found| found.addresses[2].usable = false),
        (
            "the address fd42::1/64 cannot be used, or not for long".to_owned(),
            Remedy::Addresses {
                remove: vec![v6],
                add: vec![v6]
            }
        )
    );
    // An IPv6 address that has another length stands in the way.
    let other = net("fd42::1/128");
    let (_, remedy) = one(|found| found.addresses[2].net = other);
    assert_eq!(
        remedy,
        Remedy::Addresses {
            remove: vec![other],
            add: vec![v6]
        }
    );
}

#[test]
fn an_address_that_the_host_takes_no_packets_for_is_given_anew_unless_the_device_is_down() {
    let lose =
        |found: &mut Found| {
            found.routes.as_mut().unwrap().retain(|route| {
                !matches!(route.target, RouteTarget::Local(_)) || route.net != net("fd42::1/128")
            })
        };

    assert_eq!(
        one(lose),
        (
            "the host's own route of fd42::1 is missing".to_owned(),
            Remedy::Addresses {
                remove: vec![net("fd42::1/64")],
                add: vec![net("fd42::1/64")]
            }
        )
    );
    let (seen, _) = after(|found| {
        lose(found);
        found.link.up = false;
    });
    assert_eq!(seen, ["the state of the device is down"]);
}

#[test]
fn every_route_and_rule_that_is_missing_is_added() {
    let wanted = wanted();
    for route in wanted.all_routes() {
        let (seen, remedy) = one(|found| found.routes.as_mut().unwrap().retain(|there| !route.is(there)));
        assert_eq!(
            (seen, remedy),
            (format!("the route {route} is missing"), Remedy::Route(route))
        );
    }
    for rule in &wanted.rules {
        let (seen, remedy) = one(|found| found.rules.retain(|there| there.rule() != Some(*rule)));
        assert_eq!(
            (seen, remedy),
            (format!("the {rule} is missing"), Remedy::Rule(*rule))
        );
    }
    // Those that were not looked at are not missed.
    assert_eq!(after(|found| found.routes = None).0, [] as [&str; 0]);
    // One that leads to another interface is none of the node's.
    let route = Route::to_interface(INDEX, net("10.9.0.0/16"));
    let (seen, _) = one(|found| {
        for there in found.routes.iter_mut().flatten().filter(|there| route.is(there)) {
            there.target = RouteTarget::Interface(LAN);
        }
    });
    assert_eq!(seen, "the route 10.9.0.0/16 is missing");
}

#[test]
fn the_hook_comes_first_and_only_its_own_filters_go() {
    let own = filter(1, Some(EGRESS));
    let foreign = |priority| filter(priority, Some(99));

    assert_eq!(
        one(|found| found.filters.clear()),
        (
            "the filter at the device's egress is missing".to_owned(),
            Remedy::Hook(Vec::new())
        )
    );
    // Somebody else's has its place.
    let (seen, remedy) = one(|found| found.filters = vec![foreign(1)]);
    assert_eq!(seen, "the filter at the device's egress is missing");
    assert_eq!(remedy, Remedy::Hook(Vec::new()));
    let (seen, remedy) = one(|found| found.filters = vec![foreign(1), own.clone()]);
    assert_eq!(
        seen,
        "the filter at the device's egress comes too late: a bpf filter of priority 1 takes packets before it"
    );
    assert_eq!(remedy, Remedy::Hook(vec![own]));
    let (seen, remedy) = one(|found| found.before_filters = vec![99]);
    assert!(seen.contains("the TCX program with id 99"), "{seen}");
    assert_eq!(remedy, Remedy::None);
}

#[test]
fn what_takes_packets_of_peers_at_the_ingress_is_named_with_the_command_that_removes_it() {
    let wanted = wanted();
    type Change = fn(&mut Found);
    let cases: [(Change, &str, &str); 3] = [
        (
            |found| found.ingress_filters = vec![filter(5, None)],
            "a bpf filter of priority 5",
            "tc filter del dev sr0 ingress pref 5",
        ),
        (
            |found| found.ingress_programs = vec![99],
            "the TCX program with id 99",
            "bpftool net show dev sr0",
        ),
        (
            |found| found.link.xdp = vec![98],
            "the XDP program with id 98",
            "ip link set dev sr0 xdp off; ip link set dev sr0 xdpgeneric off",
        ),
    ];
    for (change, named, fix) in cases {
        let mut found = found(&wanted);
        change(&mut found);

        let all = differences(&wanted, &found);

        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((&all[0].thing, &all[0].remedy), (&Thing::Ingress, &Remedy::None));
        assert!(all[0].seen.contains(named), "{}", all[0].seen);
        assert_eq!(all[0].fix.as_deref(), Some(fix));
    }
}

#[test]
fn the_table_and_settings_of_an_exit_are_put_back_but_for_those_that_would_end_a_default_route() {
    let serving = NftRules {
        serve: true,
        restore_mark: None,
    };
    for (n, seen) in [(0, "is missing or empty"), (2, "has other rules")] {
        assert_eq!(
            one(|found| found.nft = (serving, n)),
            (
                format!("the node's table of nftables {seen}"),
                Remedy::Nft(serving)
            )
        );
    }
    assert_eq!(after(|found| found.nft = (serving, serving.n_rules())).0.len(), 0);

    let off = |ends_default_of: Option<&str>| OffSetting {
        setting: Sysctl::at("ipv6/conf/all/forwarding"),
        ends_default_of: ends_default_of.map(str::to_owned),
    };
    assert_eq!(
        one(|found| found.settings.1 = vec![off(None)]),
        (
            "the setting net.ipv6.conf.all.forwarding is off".to_owned(),
            Remedy::Setting(Sysctl::at("ipv6/conf/all/forwarding"))
        )
    );
    let (seen, remedy) = one(|found| found.settings.1 = vec![off(Some("eth0"))]);
    assert!(
        seen.contains("not the node's to turn on") && seen.contains("eth0"),
        "{seen}"
    );
    assert_eq!(remedy, Remedy::None);
}

#[test]
fn a_gateway_is_followed_by_its_name_and_waited_for() {
    let again = |index, address, is_attached| Remedy::Gateway {
        interface: GatewayInterface {
            name: "lan0".to_owned(),
            index,
            address,
        },
        is_attached,
    };
    let gateway = |found: &mut Found| found.gateways[0].take().unwrap();
    type Change<'a> = &'a dyn Fn(&mut Found);
    let cases: [(&str, Remedy, Change<'_>); 7] = [
        (
            "is another interface of that name",
            again(9, ADDRESS, false),
            &|found| found.gateways[0].as_mut().unwrap().link.index = 9,
        ),
        ("has lost its program", again(LAN, ADDRESS, false), &|found| {
            found.gateways[0].as_mut().unwrap().programs.clear()
        }),
        ("has lost its program", again(LAN, ADDRESS, false), &|found| {
            found.places[0].program = None
        }),
        (
            "has another hardware address",
            again(LAN, [2; 6], true),
            &|found| found.gateways[0].as_mut().unwrap().link.ethernet_address = Some([2; 6]),
        ),
        (
            "is not in the program's table",
            again(LAN, ADDRESS, true),
            &|found| found.places[0].in_table = false,
        ),
        (
            "carries nothing: there is no interface lan0",
            Remedy::Wait,
            &|found| drop(gateway(found)),
        ),
        (
            "carries nothing: it is no Ethernet interface now",
            Remedy::Wait,
            &|found| found.gateways[0].as_mut().unwrap().link.ethernet_address = None,
        ),
    ];
    for (seen, remedy, change) in cases {
        assert_eq!(one(change), (format!("the gateway lan0 {seen}"), remedy));
    }
}

#[test]
fn pins_that_are_missing_are_named() {
    assert_eq!(
        one(|found| found.missing_pins = vec!["PEERS".to_owned(), "SLOTS".to_owned()]),
        (
            "what is pinned is incomplete: PEERS, SLOTS".to_owned(),
            Remedy::Pins
        )
    );
}

#[test]
fn what_the_rest_depends_on_comes_first() {
    let (seen, _) = after(|found| {
        found.link.up = false;
        found.addresses.clear();
        found.routes = Some(Vec::new());
        found.filters.clear();
    });

    let wanted = wanted();
    let levels: Vec<_> = seen.iter().map(|text| text.split(' ').nth(1).unwrap()).collect();
    assert_eq!(levels[0], "state");
    assert_eq!(
        seen.len(),
        1 + wanted.device.addresses.len() + wanted.all_routes().len() + 1
    );
    assert_eq!(
        seen.last().unwrap(),
        "the filter at the device's egress is missing"
    );
}
