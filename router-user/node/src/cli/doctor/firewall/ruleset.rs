//! Reads what `nft -j list ruleset` prints (libnftables-json(5)), and follows the rules for one packet.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

/// Deepest nesting of chains that the kernel allows (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: u32 = 16;

/// What is known of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) is_v4: bool,
    /// `tcp` or `udp`.
    pub(super) protocol: Option<&'static str>,
    /// The port that it is sent to.
    pub(super) port: Option<u16>,
    /// What conntrack calls its connection: `new`, `established` or `invalid`.
    pub(super) state: &'static str,
    pub(super) way: Way<'a>,
}

/// Where a packet passes this host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// To this host, from another one.
    In,
    /// From this host to `to`, through `interface` if that is known.
    Out { interface: Option<&'a str>, to: IpAddr },
    /// Through this host, from one of its interfaces to another.
    Through { from: &'a str, to: &'a str },
}

impl Way<'_> {
    /// The hooks that it passes.
    fn hooks(self) -> &'static [&'static str] {
        match self {
            Self::In => &["prerouting", "input"],
            Self::Out { .. } => &["output", "postrouting"],
            Self::Through { .. } => &["prerouting", "forward", "postrouting"],
        }
    }
}

/// What the rules do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RulesetVerdict {
    /// No chain drops it.
    Passed,
    /// This chain drops it.
    Dropped(ChainName),
    /// This chain may drop it.
    Unclear(ChainName),
}

/// Family, table and name, as the command line of nft has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainName {
    family: String,
    table: String,
    name: String,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

/// The rules of a host.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

/// How a chain ends for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainEnd {
    Accept,
    Drop,
    /// The chain decides nothing, and the chain that called it goes on.
    Return,
    Unclear,
}

/// Whether a packet matches a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Maybe,
}

impl Ruleset {
    /// Reads what nft printed.
    ///
    /// # Errors
    /// The text is not what nft prints.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Listing {
            nftables: Vec<Value>,
        }
        let wrong = |error| format!("what nft prints makes no sense: {error}");
        let listing: Listing = serde_json::from_slice(json).map_err(wrong)?;
        let mut ruleset = Self::default();
        for mut item in listing.nftables {
            if let Some(chain) = item.get_mut("chain") {
                ruleset
                    .chains
                    .push(serde_json::from_value(chain.take()).map_err(wrong)?);
            } else if let Some(rule) = item.get_mut("rule") {
                ruleset
                    .rules
                    .push(serde_json::from_value(rule.take()).map_err(wrong)?);
            }
        }
        Ok(ruleset)
    }

    /// Follows every chain that the packet passes.
    pub(super) fn verdict(&self, packet: Packet<'_>) -> RulesetVerdict {
        let family = if packet.is_v4 { "ip" } else { "ip6" };
        let mut verdict = RulesetVerdict::Passed;
        for chain in &self.chains {
            let is_on_the_way = chain.kind.as_deref() == Some("filter")
                && chain
                    .hook
                    .as_deref()
                    .is_some_and(|hook| packet.way.hooks().contains(&hook));
            if !is_on_the_way || !(chain.family == family || chain.family == "inet") {
                continue;
            }
            let policy = match chain.policy.as_deref() {
                Some("drop") => ChainEnd::Drop,
                _ => ChainEnd::Accept,
            };
            let (end, unsure) = self.follow(&chain.family, &chain.table, &chain.name, packet, 0);
            let with_policy = |end| if end == ChainEnd::Return { policy } else { end };
            let is_sure = unsure.into_iter().all(|one| with_policy(one) == with_policy(end));
            let end = if is_sure {
                with_policy(end)
            } else {
                ChainEnd::Unclear
            };
            match end {
                ChainEnd::Drop => return RulesetVerdict::Dropped(chain.chain_name()),
                ChainEnd::Unclear => verdict = RulesetVerdict::Unclear(chain.chain_name()),
                ChainEnd::Accept | ChainEnd::Return => {}
            }
        }
        verdict
    }

    /// Returns how the chain ends, and how it may have ended before that.
    fn follow(
        &self,
        family: &str,
        table: &str,
        chain: &str,
        packet: Packet<'_>,
        depth: u32,
    ) -> (ChainEnd, Vec<ChainEnd>) {
        let mut unsure = Vec::new();
        if depth > MAX_DEPTH {
            return (ChainEnd::Unclear, unsure);
        }
        let of_chain = |rule: &&Rule| rule.family == family && rule.table == table && rule.chain == chain;
        for rule in self.rules.iter().filter(of_chain) {
            let mut matched = Match::Yes;
            for expression in &rule.expr {
                let Some((name, value)) = expression.as_object().and_then(|object| object.iter().next())
                else {
                    matched = Match::Maybe;
                    continue;
                };
                let end = match name.as_str() {
                    "match" => match matches(value, packet) {
                        Match::Yes => continue,
                        Match::No => break,
                        Match::Maybe => {
                            matched = Match::Maybe;
                            continue;
                        }
                    },
                    "accept" => ChainEnd::Accept,
                    "drop" | "reject" => ChainEnd::Drop,
                    "return" => ChainEnd::Return,
                    "jump" | "goto" => {
                        let target = value["target"].as_str().unwrap_or_default();
                        let (end, inner) = self.follow(family, table, target, packet, depth + 1);
                        // Where it may come back, this chain may go on.
                        unsure.extend(inner.into_iter().map(|end| match end {
                            ChainEnd::Return => ChainEnd::Unclear,
                            end => end,
                        }));
                        // A jump comes back.
                        if end == ChainEnd::Return && name == "jump" {
                            break;
                        }
                        end
                    }
                    "vmap" => match mapped(value, packet) {
                        Some(end) => end,
                        None => break,
                    },
                    // Of the tools for iptables: what it does is not said.
                    "xt" if value["type"] != "match" => ChainEnd::Unclear,
                    "queue" => ChainEnd::Unclear,
                    "counter" | "log" | "mangle" | "notrack" => continue,
                    _ => {
                        matched = Match::Maybe;
                        continue;
                    }
                };
                if matched == Match::Yes {
                    return (end, unsure);
                }
                unsure.push(end);
                break;
            }
        }
        (ChainEnd::Return, unsure)
    }
}

impl Chain {
    fn chain_name(&self) -> ChainName {
        ChainName {
            family: self.family.clone(),
            table: self.table.clone(),
            name: self.name.clone(),
        }
    }
}

fn matches(value: &Value, packet: Packet<'_>) -> Match {
    let is_same = compare(&value["left"], &value["right"], packet);
    match (value["op"].as_str(), is_same) {
        (Some("==" | "in"), is_same) => is_same,
        (Some("!="), Match::Yes) => Match::No,
        (Some("!="), Match::No) => Match::Yes,
        _ => Match::Maybe,
    }
}

/// Returns what a map says for the packet; `None` if nothing.
fn mapped(value: &Value, packet: Packet<'_>) -> Option<ChainEnd> {
    let Some(pairs) = value["data"]["set"].as_array() else {
        return Some(ChainEnd::Unclear);
    };
    let mut found = None;
    for pair in pairs {
        match compare(&value["key"], &pair[0], packet) {
            Match::No => {}
            Match::Maybe => found = Some(ChainEnd::Unclear),
            Match::Yes => {
                let verdict = pair[1].as_object().and_then(|verdict| verdict.keys().next());
                return Some(match verdict.map(String::as_str) {
                    Some("accept") => ChainEnd::Accept,
                    Some("drop") => ChainEnd::Drop,
                    Some("return") => ChainEnd::Return,
                    _ => ChainEnd::Unclear,
                });
            }
        }
    }
    found
}

/// Returns whether the packet has a value, or one of a set of them, where `left` says.
fn compare(left: &Value, right: &Value, packet: Packet<'_>) -> Match {
    match left.as_object().and_then(|left| left.iter().next()) {
        Some((kind, what)) if kind == "payload" => payload(what, right, packet),
        Some((kind, what)) if kind == "meta" => meta(what["key"].as_str().unwrap_or_default(), right, packet),
        Some((kind, what)) if kind == "ct" && what["key"] == "state" => holds_word(right, packet.state),
        _ => Match::Maybe,
    }
}

fn payload(what: &Value, right: &Value, packet: Packet<'_>) -> Match {
    let own = packet.protocol;
    let (protocol, field) = (
        what["protocol"].as_str().unwrap_or_default(),
        what["field"].as_str().unwrap_or_default(),
    );
    match (protocol, field) {
        ("th" | "tcp" | "udp", _) if protocol == "th" || own == Some(protocol) => match packet.port {
            Some(port) if field == "dport" => holds_number(right, port),
            _ => Match::Maybe,
        },
        ("tcp" | "udp" | "icmp" | "icmpv6" | "sctp" | "dccp" | "esp" | "ah" | "udplite", _) => {
            if own.is_some() { Match::No } else { Match::Maybe }
        }
        ("ip", _) if !packet.is_v4 => Match::No,
        ("ip6", _) if packet.is_v4 => Match::No,
        ("ip", "protocol") | ("ip6", "nexthdr") => holds_known(right, own),
        ("ip" | "ip6", "daddr") => match packet.way {
            Way::Out { to, .. } => holds_address(right, to),
            Way::In | Way::Through { .. } => Match::Maybe,
        },
        _ => Match::Maybe,
    }
}

fn meta(key: &str, right: &Value, packet: Packet<'_>) -> Match {
    match (key, packet.way) {
        ("l4proto", _) => holds_known(right, packet.protocol),
        ("nfproto", _) => holds_word(right, if packet.is_v4 { "ipv4" } else { "ipv6" }),
        ("protocol", _) => holds_word(right, if packet.is_v4 { "ip" } else { "ip6" }),
        // Peers are on other hosts.
        ("iif" | "iifname", Way::In) if right == "lo" => Match::No,
        ("iif" | "iifname", Way::Out { .. }) => Match::No,
        ("iif" | "iifname", Way::Through { from, .. }) => holds_interface(right, from),
        ("oif" | "oifname", Way::Through { to, .. }) => holds_interface(right, to),
        (
            "oif" | "oifname",
            Way::Out {
                interface: Some(name),
                ..
            },
        ) => holds_interface(right, name),
        _ => Match::Maybe,
    }
}

/// Returns whether a value, or the set that it is, holds a word, if the word is known.
fn holds_known(right: &Value, word: Option<&str>) -> Match {
    word.map_or(Match::Maybe, |word| holds_word(right, word))
}

/// Returns whether a value, or the set that it is, is the name of an interface or its beginning with a star.
fn holds_interface(right: &Value, name: &str) -> Match {
    match right {
        Value::String(pattern) => match pattern.strip_suffix('*') {
            Some(beginning) => Match::from(name.starts_with(beginning)),
            None => holds_word(right, name),
        },
        Value::Array(all) => any(all.iter().map(|one| holds_interface(one, name))),
        Value::Object(object) => match object.get("set") {
            Some(set) => holds_interface(set, name),
            None => Match::Maybe,
        },
        _ => Match::Maybe,
    }
}

/// Returns whether a value is an address, or a network, range or set that holds it.
fn holds_address(right: &Value, address: IpAddr) -> Match {
    let parse = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    match right {
        Value::String(name) if name.starts_with('@') => Match::Maybe,
        Value::String(_) => parse(right).map_or(Match::Maybe, |own| Match::from(own == address)),
        Value::Array(all) => any(all.iter().map(|one| holds_address(one, address))),
        Value::Object(object) => {
            let (set, prefix) = (object.get("set"), object.get("prefix"));
            let range = object.get("range").and_then(Value::as_array);
            match (set, prefix, range.map(Vec::as_slice)) {
                (Some(set), ..) => holds_address(set, address),
                (None, Some(prefix), _) => {
                    let len = prefix["len"].as_u64().and_then(|len| u8::try_from(len).ok());
                    let network = parse(&prefix["addr"]).zip(len);
                    let network = network.and_then(|(addr, len)| IpNet::new(addr, len).ok());
                    network.map_or(Match::Maybe, |network| Match::from(network.contains(&address)))
                }
                (None, None, Some([first, last])) => match (parse(first), parse(last)) {
                    (Some(first), Some(last)) => Match::from((first..=last).contains(&address)),
                    _ => Match::Maybe,
                },
                _ => Match::Maybe,
            }
        }
        _ => Match::Maybe,
    }
}

/// Returns whether a value, or the set that it is, holds a word.
fn holds_word(right: &Value, word: &str) -> Match {
    match right {
        Value::String(name) if name.starts_with('@') => Match::Maybe,
        Value::String(text) => Match::from(text == word),
        Value::Array(all) => any(all.iter().map(|one| holds_word(one, word))),
        Value::Object(object) => match object.get("set") {
            Some(set) => holds_word(set, word),
            None => Match::Maybe,
        },
        _ => Match::Maybe,
    }
}

/// Returns whether a value, or the set or range that it is, holds a number.
fn holds_number(right: &Value, number: u16) -> Match {
    match right {
        Value::Number(own) => Match::from(own.as_u64() == Some(number.into())),
        Value::Array(all) => any(all.iter().map(|one| holds_number(one, number))),
        Value::Object(object) => match (object.get("set"), object.get("range").and_then(Value::as_array)) {
            (Some(set), _) => holds_number(set, number),
            (None, Some(ends)) => match (
                ends.first().and_then(Value::as_u64),
                ends.last().and_then(Value::as_u64),
            ) {
                (Some(first), Some(last)) => Match::from((first..=last).contains(&number.into())),
                _ => Match::Maybe,
            },
            (None, None) => Match::Maybe,
        },
        _ => Match::Maybe,
    }
}

fn any(all: impl Iterator<Item = Match>) -> Match {
    let mut found = Match::No;
    for one in all {
        match one {
            Match::Yes => return Match::Yes,
            Match::Maybe => found = Match::Maybe,
            Match::No => {}
        }
    }
    found
}

impl From<bool> for Match {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests;
