//! Checks whether this host's firewall lets peers in: follows the rules of nftables for a new packet to each port.
//!
//! What a rule asks that is not known beforehand, such as where a packet comes from, makes the answer "cannot tell", if
//! it matters. Firewalls on the way are not looked at.

mod ruleset;

use std::fs;
use std::io;
use std::process::Command;

use super::finding::Finding;
use super::input::CheckInput;
use super::ports::ListenAddress;
use ruleset::{NewPacket, Ruleset, RulesetVerdict};

const CHECK: &str = "firewall";

/// Names of the tables of the old iptables, which nft does not show.
const OLD_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Follows the rules for every address that the node listens on.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let listen = input.config.node().listen().iter().filter_map(ListenAddress::of);
    let listen: Vec<_> = listen
        .filter(|listen| !listen.at.ip().is_loopback() && listen.at.port() != 0)
        .collect();
    if listen.is_empty() {
        return Vec::new();
    }
    let rules = match read() {
        Ok(rules) => rules,
        Err(why) => return vec![Finding::unknown(CHECK, why)],
    };
    let has_old = OLD_TABLES
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|tables| !tables.trim().is_empty()));
    listen
        .iter()
        .map(|listen| judge(&rules, *listen, has_old))
        .collect()
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

fn judge(rules: &Ruleset, listen: ListenAddress, has_old_tables: bool) -> Finding {
    let packet = NewPacket {
        is_v4: listen.at.is_ipv4(),
        is_tcp: listen.is_tcp,
        port: listen.at.port(),
    };
    let finding = match rules.verdict(packet) {
        RulesetVerdict::Dropped(chain) => {
            Finding::problem(CHECK, format!("{chain} drops what peers send to it")).fix(format!(
                "nft insert rule {chain} {} dport {} accept",
                listen.protocol(),
                packet.port
            ))
        }
        RulesetVerdict::Unclear(chain) => Finding::unknown(
            CHECK,
            format!("cannot tell: whether {chain} lets peers in depends on more than the port"),
        )
        .fix(format!("nft list chain {chain}")),
        RulesetVerdict::Passed if has_old_tables => Finding::unknown(
            CHECK,
            "nftables lets it in; there are rules of the old iptables, which are not looked at",
        )
        .fix("iptables-legacy -nvL"),
        RulesetVerdict::Passed => Finding::ok(CHECK, "no rule of this host drops what arrives"),
    };
    finding.about(format!("{}/{}", listen.protocol(), listen.at))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_drop_is_fixed_by_a_rule_before_it() {
        let rules = Ruleset::parse(
            br#"{"nftables": [{"chain": {"family": "inet", "table": "filter", "name": "input",
            "type": "filter", "hook": "input", "policy": "drop"}}]}"#,
        )
        .unwrap();
        let listen = ListenAddress::of(&"/ip4/0.0.0.0/udp/4001/quic-v1".parse().unwrap()).unwrap();

        let finding = judge(&rules, listen, false);

        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(
            finding.fix.as_deref(),
            Some("nft insert rule inet filter input udp dport 4001 accept")
        );
        let none = Ruleset::parse(br#"{"nftables": []}"#).unwrap();
        assert_eq!(judge(&none, listen, false).verdict, Verdict::Ok);
        assert_eq!(judge(&none, listen, true).verdict, Verdict::Unknown);
    }
}
