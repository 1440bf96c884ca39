//! IP protocols by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const NAMES: [(u8, &str); 11] = [
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (132, "sctp"),
];

/// An IP protocol: its name, or its number where it has none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IpProtocol(pub u8);

/// The text is no protocol.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no protocol: a number up to 255, or {}", NAMES.map(|(_, name)| name).join(", "))]
pub struct UnknownProtocol {
    text: String,
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl FromStr for IpProtocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        let number = named.map(|(number, _)| *number).or_else(|| text.parse().ok());
        number.map(Self).ok_or_else(|| UnknownProtocol {
            text: text.to_owned(),
        })
    }
}

impl From<IpProtocol> for String {
    fn from(protocol: IpProtocol) -> Self {
        protocol.to_string()
    }
}

impl TryFrom<String> for IpProtocol {
    type Error = UnknownProtocol;

    fn try_from(text: String) -> Result<Self, UnknownProtocol> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_read_back_from_its_name() {
        for number in 0..=255 {
            let protocol = IpProtocol(number);
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_those_there_are() {
        for text in ["", "TCP", "256", "-1", "tcp "] {
            let error = text.parse::<IpProtocol>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("icmpv6"),
                "{error}"
            );
        }
    }
}
