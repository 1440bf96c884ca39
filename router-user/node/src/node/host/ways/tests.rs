use super::*;
use crate::device::TABLE_MAIN;

const DEVICE: u32 = 4_000_007;
/// No interface of this host has it.
const LAN: u32 = 4_000_003;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn networks(all: &[(&str, RouteTable)]) -> BTreeMap<IpNet, RouteTable> {
    all.iter().map(|(text, table)| (net(text), *table)).collect()
}

fn route(text: &str, output: u32, metric: u32) -> SeenRoute {
    SeenRoute {
        net: net(text),
        table: TABLE_MAIN,
        metric,
        output: Some(output),
        router: None,
        kind: "",
        is_of_address: false,
    }
}

fn taken(all: &[(&str, RouteTable)], table: RouteTable, routes: &[SeenRoute]) -> Vec<(String, String)> {
    let taken = takes(&networks(all), table, routes, DEVICE).into_iter();
    taken
        .map(|taken| (taken.route.net.to_string(), taken.of.to_string()))
        .collect()
}

#[test]
fn a_better_route_to_the_same_network_takes_it_and_a_worse_one_does_not() {
    let all = [("10.9.0.0/16", RouteTable::Main), ("fd09::/64", RouteTable::Main)];
    let own = [route("10.9.0.0/16", DEVICE, 0), route("fd09::/64", DEVICE, 1024)];
    let with = |route: SeenRoute| taken(&all, RouteTable::Main, &[own.as_slice(), &[route]].concat());
    let same = |text: &str| vec![(text.to_owned(), text.to_owned())];

    assert_eq!(with(route("fd09::/64", LAN, 1)), same("fd09::/64"));
    assert_eq!(with(route("fd09::/64", LAN, 1025)), []);
    assert_eq!(with(route("10.9.0.0/16", LAN, 100)), []);
    // Of two with one metric the first is used.
    assert_eq!(with(route("10.9.0.0/16", LAN, 0)), []);
    let before = [route("10.9.0.0/16", LAN, 0), own[0].clone()];
    assert_eq!(taken(&all, RouteTable::Main, &before), same("10.9.0.0/16"));
}

#[test]
fn a_longer_prefix_takes_from_the_smallest_network_around_it_whatever_it_does_with_packets() {
    let all = [
        ("10.0.0.0/8", RouteTable::Main),
        ("10.9.0.0/16", RouteTable::Main),
    ];
    let mut black = route("10.9.1.0/24", LAN, 500);
    (black.kind, black.output) = ("blackhole", None);
    let routes = [
        route("10.0.0.0/8", DEVICE, 0),
        route("10.9.0.0/16", DEVICE, 0),
        black,
        route("10.8.0.0/16", LAN, 0),
        route("192.168.0.0/16", LAN, 0),
        route("0.0.0.0/0", LAN, 0),
    ];

    let found = taken(&all, RouteTable::Main, &routes);

    let expected = [("10.9.1.0/24", "10.9.0.0/16"), ("10.8.0.0/16", "10.0.0.0/8")];
    assert_eq!(
        found,
        expected.map(|(route, of)| (route.to_owned(), of.to_owned()))
    );
}

#[test]
fn what_nodes_have_behind_their_own_routes_takes_nothing() {
    let mut block = route("10.9.1.0/24", LAN, 4_000_000_007);
    (block.kind, block.output) = ("unreachable", None);

    assert_eq!(
        taken(&[("10.9.0.0/16", RouteTable::Main)], RouteTable::Main, &[block]),
        []
    );
}

#[test]
fn the_main_table_takes_from_an_exit_only_what_is_a_default_route_in_disguise() {
    let all = [
        ("0.0.0.0/0", RouteTable::Exit),
        ("203.0.113.0/24", RouteTable::Exit),
    ];
    let routes = [
        route("0.0.0.0/0", LAN, 0),
        route("0.0.0.0/1", LAN, 0),
        route("192.168.1.0/24", LAN, 0),
        route("203.0.113.128/25", LAN, 0),
    ];

    let found = taken(&all, RouteTable::Main, &routes);

    let expected = [("0.0.0.0/1", "0.0.0.0/0"), ("203.0.113.128/25", "203.0.113.0/24")];
    assert_eq!(
        found,
        expected.map(|(route, of)| (route.to_owned(), of.to_owned()))
    );
    // In the node's own table nothing is anybody else's.
    assert_eq!(taken(&all, RouteTable::Exit, &routes[2..3]).len(), 1);
    assert_eq!(
        taken(
            &[("10.9.0.0/16", RouteTable::Override)],
            RouteTable::Main,
            &[route("10.9.1.0/24", LAN, 0)]
        ),
        []
    );
}

#[test]
fn what_was_inside_at_the_start_or_at_a_reload_is_the_hosts_own_and_what_comes_later_is_not() {
    let all = networks(&[("10.9.0.0/16", RouteTable::Main)]);
    let look = |ways: &mut Ways, routes: &[SeenRoute]| {
        let accepted = ways.handle_taken(takes(&all, RouteTable::Main, routes, DEVICE));
        let found = ways.differences(&all);
        let fixes: Vec<_> = found
            .iter()
            .map(|difference| difference.fix.clone().unwrap())
            .collect();
        (accepted.len(), fixes)
    };
    let first = route("10.9.1.0/24", LAN, 0);
    let second = route("10.9.2.0/24", LAN, 5);
    // Without interfaces of these numbers they have no names.
    let fix = vec!["ip route del 10.9.2.0/24 metric 5".to_owned()];
    let mut ways = Ways::new();

    assert_eq!(look(&mut ways, std::slice::from_ref(&first)), (1, vec![]));
    assert_eq!(look(&mut ways, &[]), (0, vec![]));
    // It comes and goes.
    assert_eq!(
        look(&mut ways, &[first.clone(), second.clone()]),
        (0, fix.clone())
    );
    assert_eq!(look(&mut ways, &[first.clone(), second.clone()]), (0, fix));
    ways.accept();
    assert_eq!(look(&mut ways, &[first, second]), (1, vec![]));
    // What comes with an address of an interface is the host's own whenever it comes.
    let mut bridge = route("10.9.3.0/24", LAN, 0);
    bridge.is_of_address = true;
    assert_eq!(look(&mut ways, &[bridge]), (0, vec![]));
    // The same network is never somebody else's.
    ways.accept();
    assert_eq!(look(&mut ways, &[route("10.9.0.0/16", LAN, 0)]).1.len(), 1);
}

#[test]
fn of_very_many_ways_some_are_named_and_the_rest_counted() {
    let all = networks(&[("10.0.0.0/8", RouteTable::Main)]);
    let mut ways = Ways::new();
    ways.handle_taken(Vec::new());
    let routes: Vec<_> = (0..200)
        .map(|n| route(&format!("10.{n}.0.0/16"), LAN, 0))
        .collect();

    ways.handle_taken(takes(&all, RouteTable::Main, &routes, DEVICE));

    let found = ways.differences(&all);
    assert_eq!(found.len(), MAX_NAMED);
    assert!(
        found.last().unwrap().seen.ends_with("; and so do 184 more"),
        "{found:?}"
    );
}

#[test]
fn a_network_is_asked_about_by_an_address_in_its_middle() {
    for (network, address) in [
        ("10.9.0.0/16", Some("10.9.128.0")),
        ("10.42.0.2/32", Some("10.42.0.2")),
        ("10.42.0.2/31", Some("10.42.0.3")),
        ("0.0.0.0/0", Some("128.0.0.0")),
        ("::/0", Some("8000::")),
        ("fd09::/64", Some("fd09::8000:0:0:0")),
        ("fd42::2/128", Some("fd42::2")),
        ("192.0.0.0/2", None),
    ] {
        assert_eq!(
            representative(net(network)),
            address.map(|text| text.parse().unwrap()),
            "{network}"
        );
    }
}
