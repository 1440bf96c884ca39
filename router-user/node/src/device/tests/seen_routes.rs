//! Routes of others, and by which the kernel sends a packet.

use std::process::Command;

use nix::errno::Errno;

use super::*;

fn ip(args: &str) {
    let ended = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(ended.success(), "ip {args}");
}

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_way_to_an_address_is_that_of_the_rules_and_routes_in_force() {
    in_netns(async || {
        let netlink = Netlink::open_filtering().unwrap();
        let device = started(&["10.9.0.0/16", "fd09::/64"]).await;
        let other = create_other().await;
        let way =
            async |to: &str, source: Option<&str>| netlink.way_to(v4(to), source.map(v4)).await.unwrap();
        let through = |way: Way| match way {
            Way::By(route) => (route.output, route.net.to_string(), route.table),
            Way::Nowhere(errno) => panic!("{errno}"),
        };

        for to in ["10.9.128.0", "fd09::8000:0:0:0"] {
            assert_eq!(through(way(to, None).await).0, Some(device.index()), "{to}");
        }
        ip("route add 10.9.128.0/24 dev other metric 7");
        assert_eq!(
            through(way("10.9.128.0", None).await),
            (Some(other.index()), "10.9.128.0/24".to_owned(), TABLE_MAIN)
        );
        ip("route add 10.9.0.0/16 dev other table 100");
        ip("rule add pref 10 from 10.42.0.1 table 100");
        assert_eq!(through(way("10.9.1.0", None).await).0, Some(device.index()));
        assert_eq!(through(way("10.9.1.0", Some("10.42.0.1")).await).2, 100);
        ip("-6 rule add pref 11 to fd09::/64 unreachable");
        assert!(matches!(way("fd09::8000:0:0:0", None).await, Way::Nowhere(_)));
        ip("rule add pref 12 to 10.9.0.0/16 prohibit");
        assert_eq!(way("10.9.1.0", None).await, Way::Nowhere(Errno::EACCES));

        let rules = netlink.seen_rules().await.unwrap();
        let told: Vec<_> = rules
            .iter()
            .filter(|rule| (10..=12).contains(&rule.priority()))
            .map(|rule| {
                (
                    rule.priority(),
                    rule.is_ipv6(),
                    rule.table(),
                    rule.has_source(),
                    rule.leads_nowhere(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (10, false, Some(100), true, false),
                (12, false, None, false, true),
                (11, true, None, false, true)
            ]
        );
        assert_eq!(rules[1].removal(), "ip rule del pref 10");
        let own = Some(v4("10.42.0.1"));
        let is_for = |at: usize, to: &str, source| rules[at].may_be_for(v4(to), source);
        assert!(is_for(1, "10.9.1.0", own) && !is_for(1, "10.9.1.0", None) && !is_for(1, "fd09::1", own));
        assert!(is_for(2, "10.9.1.0", None) && !is_for(2, "10.8.1.0", None));
    });
}

#[test]
fn what_a_table_has_is_told_with_the_command_that_removes_it() {
    in_netns(async || {
        let netlink = Netlink::open_filtering().unwrap();
        let _device = started(&["10.9.0.0/16"]).await;
        let _other = create_other().await;
        ip("route add 10.9.1.0/24 via 10.43.0.2 metric 5");
        ip("route add blackhole 10.9.2.0/24");
        ip("-6 route add fd09::/64 dev other metric 3 table 5200320");

        let main = netlink.routes_of_table(TABLE_MAIN).await.unwrap();
        let own = netlink.routes_of_table(5_200_320).await.unwrap();

        let removals: Vec<_> = main
            .iter()
            .chain(&own)
            .filter(|route| {
                route.net.to_string().contains("09::") || route.net.to_string().starts_with("10.9.")
            })
            .map(SeenRoute::removal)
            .collect();
        assert_eq!(
            removals,
            [
                "ip route del 10.9.0.0/16 dev sr0",
                "ip route del 10.9.1.0/24 via 10.43.0.2 dev other metric 5",
                "ip route del blackhole 10.9.2.0/24",
                "ip -6 route del fd09::/64 dev other metric 3 table 5200320",
            ]
        );
        assert_eq!(main[0].table, TABLE_MAIN);
        for removal in &removals[1..] {
            ip(removal.strip_prefix("ip ").unwrap());
        }
        assert_eq!(netlink.routes_of_table(5_200_320).await.unwrap(), []);
    });
}

async fn create_other() -> Device {
    let addresses = nets(&["10.43.0.1/24", "fd44::1/64"]);
    let settings = DeviceSettings {
        name: "other",
        addresses: &addresses,
        mtu: 1420,
    };
    let device = Device::create(settings).await.unwrap();
    device.start([]).await.unwrap();
    device
}
