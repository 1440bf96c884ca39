//! What is written is read, whatever it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

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
