use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn planned(networks: &[(&str, RouteTable)]) -> TunnelRoutes {
    let networks = networks.iter().map(|(text, table)| (net(text), *table)).collect();
    TunnelRoutes::planned(&networks, &[], OwnNumbers(7), 3, NonZeroU32::new(0x2053))
}

#[test]
fn every_network_has_a_route_to_the_device_and_one_that_leads_nowhere() {
    let routes = planned(&[("10.9.0.0/16", RouteTable::Main), ("fd09::/64", RouteTable::Main)]);

    let shown: Vec<_> = routes
        .routes
        .iter()
        .map(|route| (route.net.to_string(), route.target, route.table, route.metric))
        .collect();
    let nowhere = |text: &str| {
        (
            text.to_owned(),
            RouteTarget::Unreachable,
            254,
            Some(4_000_000_007),
        )
    };
    let there = |text: &str| (text.to_owned(), RouteTarget::Interface(3), 254, None);
    assert_eq!(
        shown,
        [
            nowhere("10.9.0.0/16"),
            nowhere("fd09::/64"),
            there("10.9.0.0/16"),
            there("fd09::/64"),
        ]
    );
    assert_eq!(routes.rules, []);
}

#[test]
fn the_networks_of_the_device_lead_nowhere_when_nothing_else_routes_them() {
    let peers = [
        ("10.42.0.0/24", RouteTable::Main),
        ("fd42::/64", RouteTable::Exit),
    ];
    let peers = peers.map(|(text, table)| (net(text), table)).into();
    let addresses = ["10.42.0.1/24", "10.43.0.1/32", "fd42::1/64"].map(net);

    let routes = TunnelRoutes::planned(&peers, &addresses, OwnNumbers(7), 3, None).routes;

    let (blocks, to_device): (Vec<Route>, Vec<Route>) = routes.into_iter().partition(is_block);
    let shown: Vec<_> = blocks.iter().map(|route| (route.net, route.table)).collect();
    assert_eq!(
        shown,
        [
            (net("10.42.0.0/24"), TABLE_MAIN),
            (net("10.43.0.1/32"), TABLE_MAIN),
            (net("fd42::/64"), TABLE_MAIN),
            (net("fd42::/64"), OwnNumbers(7).table(RouteTable::Exit)),
        ]
    );
    assert_eq!(to_device.len(), 2);
}

#[test]
fn rules_are_for_the_families_that_need_them_and_not_for_marked_packets() {
    let routes = planned(&[
        ("0.0.0.0/0", RouteTable::Exit),
        ("fd77::/64", RouteTable::Override),
    ]);

    let shown: Vec<_> = routes
        .rules
        .iter()
        .map(|rule| (rule.ipv6, rule.priority, rule.table, rule.mark, rule.not))
        .collect();
    assert_eq!(
        shown,
        [
            (false, 30_007, NOWHERE, Some(0x2053), true),
            (false, 2030, 254, None, false),
            (false, 2031, 5_200_014, Some(0x2053), true),
            (true, 2028, 5_200_015, Some(0x2053), true),
            (true, 2029, 5_200_015, Some(0x2053), true),
        ]
    );
    assert_eq!(routes.rules[1].suppress_prefix_len, Some(0));
    // Half of everything leaves the other half to the host.
    let half = planned(&[("0.0.0.0/1", RouteTable::Exit)]);
    assert_eq!(half.rules[0].table, 5_200_014);
    assert!(routes.rules.iter().all(|rule| OwnNumbers(7).is_own_rule(rule)));
    assert!(!routes.rules.iter().any(|rule| OwnNumbers(8).is_own_rule(rule)));
}

#[test]
fn a_stop_leaves_what_the_configuration_and_its_reason_say() {
    use OnStop::{Block, Remove};
    use StopReason::{Failure, OnPurpose, Unknown};
    for (on_stop, reason, is_managed, expected) in [
        (None, OnPurpose, false, Kept::Nothing),
        (Some(Block), OnPurpose, false, Kept::All),
        (None, Unknown, false, Kept::Needed),
        (None, Unknown, true, Kept::All),
        (Some(Remove), Unknown, false, Kept::Nothing),
        (Some(Remove), Unknown, true, Kept::All),
        (Some(Block), Unknown, false, Kept::All),
        (Some(Remove), Failure, false, Kept::All),
    ] {
        assert_eq!(
            kept(on_stop, reason, is_managed),
            expected,
            "{on_stop:?} {reason:?}"
        );
    }
}

#[test]
fn only_what_another_route_would_lead_out_is_needed() {
    let mut routes = planned(&[
        ("10.9.0.0/16", RouteTable::Main),
        ("0.0.0.0/0", RouteTable::Exit),
        ("fd09::/64", RouteTable::Main),
        ("::/0", RouteTable::Exit),
    ]);
    routes
        .routes
        .retain(|route| route.target == RouteTarget::Unreachable);
    let default = HostRoute {
        net: net("0.0.0.0/0"),
        through: "u0".to_owned(),
        is_lan: false,
    };

    let free = routes.of_no_use(&[default]);

    let nets: Vec<_> = free.routes.iter().map(|route| route.net.to_string()).collect();
    assert_eq!(nets, ["::/0", "fd09::/64"]);
    assert_eq!(free.rules.len(), 3);
    assert!(free.rules.iter().all(|rule| rule.ipv6));
    assert_eq!(routes.of_no_use(&[]), routes);
}

#[test]
fn what_is_left_of_all_nodes_is_without_that_of_those_that_run() {
    let networks = BTreeMap::from([
        (net("10.9.0.0/16"), RouteTable::Main),
        (net("0.0.0.0/0"), RouteTable::Exit),
    ]);
    let of = |slot| TunnelRoutes::planned(&networks, &[], OwnNumbers(slot), 3, NonZeroU32::new(0x2053));
    let both = TunnelRoutes {
        routes: [of(7).routes, of(8).routes].concat(),
        rules: [of(7).rules, of(8).rules].concat(),
    };

    let left = both.clone().of_nodes(&[OwnNumbers(8)]);

    let (blocks, _) = of(7).blocks_first();
    assert_eq!((left.routes, left.rules), (blocks.routes, of(7).rules));
    assert_eq!(
        both.of_nodes(&[OwnNumbers(7), OwnNumbers(8)]),
        TunnelRoutes::default()
    );
}

#[test]
fn names_of_devices_have_numbers_of_their_own() {
    let [first, second] = ["sr0", "sr1"].map(OwnNumbers::of);

    assert_ne!(first, second);
    for numbers in [first, second, OwnNumbers(N_SLOTS - 1)] {
        assert!(numbers.priority() + N_PRIORITIES <= FIRST_SPARE);
        assert!(numbers.spare_priority() < 32_766, "before the main table");
    }
}
