//! Which flows are asked for: the query of `/v1/flows`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use form_urlencoded::Serializer;
use ipnet::IpNet;

use super::IpProtocol;

/// Flows in an answer, unless the query says otherwise.
pub const DEFAULT_FLOWS: u32 = 100;

/// Most flows in an answer.
pub const MAX_FLOWS: u32 = 10_000;

/// Names of all parameters.
const PARAMETERS: &str = "peer, address, port, protocol, sort, limit";

/// Which flows are asked for, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowQuery {
    /// Only flows to and from the peer with this name, inner address, id or end of an id.
    pub peer: Option<String>,
    /// Only flows whose source or destination is in this prefix.
    pub address: Option<IpNet>,
    /// Only flows with this source or destination port.
    pub port: Option<u16>,
    /// Only flows of this protocol.
    pub protocol: Option<IpProtocol>,
    /// Order of the flows.
    pub sort: FlowSort,
    /// Number of flows at most, 1 to [`MAX_FLOWS`].
    pub limit: u32,
}

/// What flows are sorted by; most comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowSort {
    /// Bytes, of both directions together.
    #[default]
    Bytes,
    /// Packets, of both directions together.
    Packets,
    /// Bytes that this node captured.
    Tx,
    /// Bytes that came from the peer.
    Rx,
    /// Time since the first packet.
    Age,
    /// Time since the last packet.
    Idle,
}

impl Default for FlowQuery {
    fn default() -> Self {
        Self {
            peer: None,
            address: None,
            port: None,
            protocol: None,
            sort: FlowSort::default(),
            limit: DEFAULT_FLOWS,
        }
    }
}

impl FlowQuery {
    /// Reads the query of a request, the part of the URL behind the `?`.
    ///
    /// # Errors
    /// The parameter that is wrong, and what is allowed.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut flows = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |why: String| format!("{name}={value}: {why}");
            match name.as_ref() {
                "peer" if value.is_empty() => {
                    return Err(wrong(
                        "a peer's name, inner address or id, or the end of the id".to_owned(),
                    ));
                }
                "peer" => flows.peer = Some(value.clone().into_owned()),
                "address" => flows.address = Some(parse_prefix(&value).map_err(wrong)?),
                "port" => {
                    let port = value.parse();
                    flows.port = Some(port.map_err(|_no_port| wrong("a port is 0 to 65535".to_owned()))?);
                }
                "protocol" => {
                    flows.protocol = Some(value.parse().map_err(|error| wrong(format!("{error}")))?);
                }
                "sort" => flows.sort = value.parse().map_err(wrong)?,
                "limit" => flows.limit = parse_limit(&value).map_err(wrong)?,
                _ => return Err(format!("there is no parameter {name:?}; there are {PARAMETERS}")),
            }
            if seen.contains(&name) {
                return Err(format!("{name} is there twice"));
            }
            seen.push(name);
        }
        Ok(flows)
    }

    /// Returns the query of a request; it is empty if every parameter has its default.
    pub fn query(&self) -> String {
        let default = Self::default();
        let mut query = Serializer::new(String::new());
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        };
        add("peer", self.peer.clone());
        add("address", self.address.map(|address| address.to_string()));
        add("port", self.port.map(|port| port.to_string()));
        add("protocol", self.protocol.map(|protocol| protocol.to_string()));
        add("sort", (self.sort != default.sort).then(|| self.sort.to_string()));
        add(
            "limit",
            (self.limit != default.limit).then(|| self.limit.to_string()),
        );
        query.finish()
    }
}

/// Reads an address, which is a prefix of its full length, or a prefix.
///
/// # Errors
/// The text is wrong; the error says what is allowed.
pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    address
        .or_else(|| text.parse::<IpNet>().ok())
        .map(|prefix| prefix.trunc())
        .ok_or_else(|| "an IPv4 or IPv6 address, or a prefix such as 10.0.0.0/8".to_owned())
}

/// Reads a number of flows.
///
/// # Errors
/// The text is wrong; the error says what is allowed.
pub(crate) fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_FLOWS).contains(limit));
    limit.ok_or_else(|| format!("a number from 1 to {MAX_FLOWS}"))
}

impl FlowSort {
    /// Every order.
    pub const ALL: [Self; 6] = [
        Self::Bytes,
        Self::Packets,
        Self::Tx,
        Self::Rx,
        Self::Age,
        Self::Idle,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Age => "age",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for FlowSort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FlowSort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|sort| sort.to_string() == text)
            .ok_or_else(|| format!("one of {}", Self::ALL.map(|sort| sort.to_string()).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_back_as_it_was_written() {
        let full = FlowQuery {
            peer: Some("a b&c".to_owned()),
            address: Some("fd42::/64".parse().unwrap()),
            port: Some(443),
            protocol: Some(IpProtocol(6)),
            sort: FlowSort::Idle,
            limit: 7,
        };
        for query in [FlowQuery::default(), full] {
            assert_eq!(FlowQuery::parse(&query.query()), Ok(query));
        }
        assert_eq!(FlowQuery::default().query(), "");
    }

    #[test]
    fn an_address_is_a_prefix_and_bits_behind_a_prefix_do_not_matter() {
        let address = |query| FlowQuery::parse(query).unwrap().address.unwrap().to_string();
        assert_eq!(address("address=10.42.0.1"), "10.42.0.1/32");
        assert_eq!(address("address=10.42.0.1%2F8"), "10.0.0.0/8");
        assert_eq!(address("address=fd42::1"), "fd42::1/128");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (query, said) in [
            (
                "colour=red",
                "there is no parameter \"colour\"; there are peer, address, port, protocol, sort, limit",
            ),
            ("port=65536", "port=65536: a port is 0 to 65535"),
            (
                "peer=",
                "peer=: a peer's name, inner address or id, or the end of the id",
            ),
            (
                "address=10.42",
                "address=10.42: an IPv4 or IPv6 address, or a prefix such as 10.0.0.0/8",
            ),
            ("sort=size", "sort=size: one of bytes, packets, tx, rx, age, idle"),
            ("limit=0", "limit=0: a number from 1 to 10000"),
            ("limit=10001", "limit=10001: a number from 1 to 10000"),
            ("port=1&port=2", "port is there twice"),
        ] {
            assert_eq!(FlowQuery::parse(query), Err(said.to_owned()));
        }
        let protocol = FlowQuery::parse("protocol=tcq").unwrap_err();
        assert!(
            protocol.starts_with("protocol=tcq: \"tcq\" is no protocol"),
            "{protocol}"
        );
    }
}
