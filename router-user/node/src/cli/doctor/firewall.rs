//! Checks whether this host's firewall lets peers in, this host's packets out to them and into the tunnel, answers
//! back to the networks of gateways, and what peers send out by this host as an exit: follows the rules of nftables for a
//! packet of each kind.
//!
//! What a rule asks that is not known beforehand, such as where a packet comes from, makes the answer "cannot tell", if
//! it matters. Firewalls on the way are not looked at.

mod ruleset;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use ipnet::IpNet;

use super::finding::Finding;
use super::input::CheckInput;
use super::ports::ListenAddress;
use super::routes::interface_to;
use crate::config::Config;
use ruleset::{Packet, Ruleset, RulesetVerdict, Way};

const CHECK: &str = "firewall";

/// Addresses that no host has (RFC 5737, RFC 3849): their routes are the default routes.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

/// Names of the tables of the old iptables, which nft does not show.
const OLD_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Follows the rules for every address that the node listens on, every one that it dials, one behind each peer, the way
/// from the device to each gateway, and that through an exit and back.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let listen = input.config.node().listen().iter().filter_map(ListenAddress::of);
    let listen: Vec<_> = listen
        .filter(|listen| !listen.at.ip().is_loopback() && listen.at.port() != 0)
        .collect();
    let peers = input.config.peers();
    if listen.is_empty() && peers.is_empty() {
        return Vec::new();
    }
    let rules = match read() {
        Ok(rules) => rules,
        Err(why) => return vec![Finding::unknown(CHECK, why)],
    };
    let has_old = OLD_TABLES
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|tables| !tables.trim().is_empty()));
    let dialled = peers.iter().flat_map(|peer| peer.addresses());
    let dialled: Vec<_> = dialled
        .filter_map(ListenAddress::of)
        .map(|to| (to, interface_to(to.at.ip(), input)))
        .collect();
    let exits: Vec<_> = ANYWHERE.map(|to| interface_to(to, input)).into_iter().collect();
    let inner = peers.iter().filter_map(|peer| peer.allowed_ips().first());
    let device = input.config.device().name();
    listen
        .iter()
        .map(|listen| judge(&rules, Sent::in_to(*listen), has_old))
        .chain(
            dialled
                .iter()
                .map(|(to, interface)| judge(&rules, Sent::out_to(*to, interface.as_deref()), has_old)),
        )
        .chain(inner.map(|network| judge(&rules, Sent::into_tunnel(device, *network), has_old)))
        .chain(
            back_to_gateways(&input.config)
                .into_iter()
                .map(|sent| judge(&rules, sent, has_old)),
        )
        .chain(
            through_exit(&input.config, &exits)
                .into_iter()
                .map(|sent| judge(&rules, sent, has_old)),
        )
        .collect()
}

/// Returns what peers send through this host as an exit, and what comes back, of each protocol that a peer has an address of:
/// `exits` are the interfaces of the default routes.
fn through_exit<'a>(config: &'a Config, exits: &'a [Option<String>]) -> Vec<Sent<'a>> {
    if !config.exit().serve() {
        return Vec::new();
    }
    let device = config.device().name();
    let networks = || config.peers().iter().flat_map(|peer| peer.allowed_ips());
    let families = ANYWHERE.iter().zip(exits).filter_map(|(to, exit)| {
        let is_used = networks().any(|net| net.addr().is_ipv4() == to.is_ipv4());
        Some((
            to.is_ipv4(),
            exit.as_deref().filter(|exit| is_used && *exit != device)?,
        ))
    });
    families
        .flat_map(|(is_v4, exit)| {
            [
                Sent::out_by_exit(device, exit, is_v4),
                Sent::back_by_exit(device, exit, is_v4),
            ]
        })
        .collect()
}

/// Returns what comes back to the network of each gateway, of each protocol that the device has an address of. Connection
/// tracking calls an answer by TCP invalid: the requests pass it by, in the program at the gateway.
fn back_to_gateways(config: &Config) -> Vec<Sent<'_>> {
    let device = config.device();
    let families = [true, false].into_iter().filter(|is_v4| {
        let of_family = |address: &IpNet| address.addr().is_ipv4() == *is_v4;
        device.addresses().iter().any(of_family)
    });
    families
        .flat_map(|is_v4| {
            let gateways = config.gateways().iter();
            gateways.map(move |gateway| Sent::back_to(device.name(), gateway.interface(), is_v4))
        })
        .collect()
}

/// A kind of packet, and how the report calls it.
struct Sent<'a> {
    packet: Packet<'a>,
    /// Which of them the finding is about.
    subject: String,
    /// Who sends it.
    who: &'static str,
    /// What of the packet a rule can ask, in the words of nft.
    rule: String,
}

impl<'a> Sent<'a> {
    fn in_to(listen: ListenAddress) -> Self {
        Self {
            packet: Packet {
                is_v4: listen.at.is_ipv4(),
                protocol: Some(listen.protocol()),
                port: Some(listen.at.port()),
                state: "new",
                way: Way::In,
            },
            subject: format!("{}/{}", listen.protocol(), listen.at),
            who: "what peers send to it",
            rule: format!("{} dport {}", listen.protocol(), listen.at.port()),
        }
    }

    fn out_to(to: ListenAddress, interface: Option<&'a str>) -> Self {
        let (ip, port) = (to.at.ip(), to.at.port());
        let family = if ip.is_ipv4() { "ip" } else { "ip6" };
        Self {
            packet: Packet {
                is_v4: ip.is_ipv4(),
                protocol: Some(to.protocol()),
                port: Some(port),
                state: "new",
                way: Way::Out { interface, to: ip },
            },
            subject: format!("out to {}/{}", to.protocol(), to.at),
            who: "what this host sends to the peer",
            rule: format!("{family} daddr {ip} {} dport {port}", to.protocol()),
        }
    }

    fn back_to(device: &'a str, gateway: &'a str, is_v4: bool) -> Self {
        let family = if is_v4 { "IPv4" } else { "IPv6" };
        Self {
            packet: Packet {
                is_v4,
                protocol: Some("tcp"),
                port: None,
                state: "invalid",
                way: Way::Through {
                    from: device,
                    to: gateway,
                },
            },
            subject: format!("{family} from {device} to {gateway}"),
            who: "answers to hosts behind the gateway, whose requests its connection tracking has not seen",
            rule: format!("iifname {device} oifname {gateway}"),
        }
    }

    fn out_by_exit(device: &'a str, exit: &'a str, is_v4: bool) -> Self {
        Self {
            packet: Packet {
                protocol: None,
                state: "new",
                ..Self::back_to(device, exit, is_v4).packet
            },
            who: "what peers send through this host to others (exit.serve)",
            ..Self::back_to(device, exit, is_v4)
        }
    }

    fn back_by_exit(device: &'a str, exit: &'a str, is_v4: bool) -> Self {
        Self {
            packet: Packet {
                protocol: None,
                state: "established",
                ..Self::back_to(exit, device, is_v4).packet
            },
            who: "what others answer to peers (exit.serve)",
            rule: format!("iifname {exit} oifname {device} ct state established,related"),
            ..Self::back_to(exit, device, is_v4)
        }
    }

    fn into_tunnel(device: &'a str, network: IpNet) -> Self {
        // The network's own address stands for all in it.
        let to = network.addr();
        Self {
            packet: Packet {
                is_v4: to.is_ipv4(),
                protocol: None,
                port: None,
                state: "new",
                way: Way::Out {
                    interface: Some(device),
                    to,
                },
            },
            subject: format!("{network} through {device}"),
            who: "what this host sends into the tunnel",
            rule: format!("oifname {device}"),
        }
    }
}

fn read() -> Result<Ruleset, String> {
    let listed = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let listed = listed.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "nft is not installed, and without it the rules cannot be read".to_owned(),
        _ => format!("nft cannot be run: {error}"),
    })?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr);
        let said = said.lines().next().unwrap_or("it gave no reason");
        return Err(format!("nft does not list the rules: {said}"));
    }
    Ruleset::parse(&listed.stdout)
}

fn judge(rules: &Ruleset, sent: Sent<'_>, has_old_tables: bool) -> Finding {
    let Sent {
        packet,
        subject,
        who,
        rule,
    } = sent;
    let finding = match rules.verdict(packet) {
        RulesetVerdict::Dropped(chain) => Finding::problem(CHECK, format!("{chain} drops {who}"))
            .fix(format!("nft insert rule {chain} {rule} accept")),
        RulesetVerdict::Unclear(chain) => Finding::unknown(
            CHECK,
            format!("cannot tell: whether {chain} lets pass {who} depends on more than is known"),
        )
        .fix(format!("nft list chain {chain}")),
        RulesetVerdict::Passed if has_old_tables => Finding::unknown(
            CHECK,
            "nftables lets it pass; there are rules of the old iptables, which are not looked at",
        )
        .fix("iptables-legacy -nvL"),
        RulesetVerdict::Passed => Finding::ok(CHECK, format!("no rule of this host drops {who}")),
    };
    finding.about(subject)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn answers_that_a_stateful_firewall_drops_are_a_problem_with_the_rule_that_lets_them_pass() {
        let config = Config::parse(
            "[device]\nname = 'sr0'\naddresses = ['10.42.0.1/24']\n[[gateway]]\ninterface = 'lan0'",
            std::path::Path::new("test.toml"),
        )
        .unwrap();
        let sent = || back_to_gateways(&config).remove(0);
        let stateful = Ruleset::parse(
            br#"{"nftables": [{"chain": {"family": "inet", "table": "filter", "name": "forward",
            "type": "filter", "hook": "forward", "policy": "drop"}},
            {"rule": {"family": "inet", "table": "filter", "chain": "forward", "expr":
            [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
             {"accept": null}]}}]}"#,
        )
        .unwrap();

        let finding = judge(&stateful, sent(), false);

        assert_eq!(back_to_gateways(&config).len(), 1);
        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(
            finding.fix.as_deref(),
            Some("nft insert rule inet filter forward iifname sr0 oifname lan0 accept")
        );
        let none = Ruleset::parse(br#"{"nftables": []}"#).unwrap();
        assert_eq!(judge(&none, sent(), false).verdict, Verdict::Ok);
    }

    #[test]
    fn what_an_exit_forwards_is_followed_both_ways_with_the_rules_that_let_it_pass() {
        let config = |serve| {
            let text = format!(
                "[device]\nname = 'sr0'\naddresses = ['10.42.0.1/24']\n[exit]\nserve = {serve}\n[[peer]]\n\
                 id = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'\nallowed_ips = ['10.42.0.2/32']\n"
            );
            Config::parse(&text, std::path::Path::new("test.toml")).unwrap()
        };
        let exits = ["out0", "out6"].map(|exit| Some(exit.to_owned()));
        let serving = config(true);
        let rules = |policy: &str| {
            let json = format!(
                r#"{{"nftables": [{{"chain": {{"family": "inet", "table": "filter", "name": "forward",
                "type": "filter", "hook": "forward", "policy": "{policy}"}}}},
                {{"rule": {{"family": "inet", "table": "filter", "chain": "forward", "expr":
                [{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": ["established", "related"]}}}},
                 {{"accept": null}}]}}}}]}}"#
            );
            Ruleset::parse(json.as_bytes()).unwrap()
        };
        let judged = |policy: &str| -> Vec<Finding> {
            let sent = through_exit(&serving, &exits).into_iter();
            sent.map(|sent| judge(&rules(policy), sent, false)).collect()
        };

        let [out, back] = &judged("drop")[..] else {
            panic!("IPv4 only: no peer has another address")
        };
        assert_eq!(out.verdict, Verdict::Problem);
        assert_eq!(
            out.fix.as_deref(),
            Some("nft insert rule inet filter forward iifname sr0 oifname out0 accept")
        );
        // Answers are let pass.
        assert_eq!(back.verdict, Verdict::Ok);
        assert!(judged("accept").iter().all(|found| found.verdict == Verdict::Ok));
        assert_eq!(through_exit(&serving, &[None, None]).len(), 0, "no default route");
        assert_eq!(through_exit(&config(false), &exits).len(), 0);
    }

    #[test]
    fn a_drop_is_fixed_by_a_rule_before_it() {
        let rules = Ruleset::parse(
            br#"{"nftables": [{"chain": {"family": "inet", "table": "filter", "name": "input",
            "type": "filter", "hook": "input", "policy": "drop"}}]}"#,
        )
        .unwrap();
        let listen = ListenAddress::of(&"/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).unwrap();

        let finding = judge(&rules, Sent::in_to(listen), false);

        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(
            finding.fix.as_deref(),
            Some("nft insert rule inet filter input udp dport 4001 accept")
        );
        let none = Ruleset::parse(br#"{"nftables": []}"#).unwrap();
        assert_eq!(judge(&none, Sent::in_to(listen), false).verdict, Verdict::Ok);
        assert_eq!(judge(&none, Sent::in_to(listen), true).verdict, Verdict::Unknown);
    }
}
