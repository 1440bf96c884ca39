//! Numbers, ids and addresses for people.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::control::Transport;

/// Returns the text of a number of bytes, in binary units with about three digits.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    if value < 1024.0 {
        return format!("{n} B");
    }
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1} {unit}")
}

/// Returns the text of a number of seconds, in at most two units.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Returns the end of a peer's id, which tells peers apart.
pub(super) fn short_id(id: &str) -> &str {
    let start = id.len().saturating_sub(8);
    id.get(start..).unwrap_or(id)
}

/// Returns what a peer is called in a narrow place: its name, or else the end of its id.
pub(super) fn short_name<'a>(name: Option<&'a str>, id: &'a str) -> &'a str {
    name.unwrap_or_else(|| short_id(id))
}

/// Returns a node's name and its id, or the id alone if it has no name.
pub(super) fn called(name: Option<&str>, id: &impl Display) -> String {
    match name {
        Some(name) => format!("{name} ({id})"),
        None => id.to_string(),
    }
}

/// Returns the text of one end of a flow, without a port where the flow has none.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        _ => SocketAddr::new(address, port).to_string(),
    }
}

/// Returns transport, address and port of a multiaddress; a text that is none as it is.
pub(super) fn plain_way(text: &str) -> String {
    let transport = if text.contains("/quic") {
        Transport::Quic
    } else {
        Transport::Tcp
    };
    match plain_address(text) {
        plain if plain == *text => plain,
        plain => format!("{transport} {plain}"),
    }
}

/// Returns address and port of a multiaddress as other programs write them; a text that is none as it is.
pub(super) fn plain_address(text: &str) -> String {
    let plain = || {
        let address: Multiaddr = text.parse().ok()?;
        let ip = address.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        })?;
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        })?;
        Some(SocketAddr::new(ip, port).to_string())
    };
    plain().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order_of_magnitude() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(seconds(0.25), "0.2s");
        assert_eq!(seconds(61.0), "1m 01s");
        assert_eq!(seconds(7260.0), "2h 01m");
        assert_eq!(seconds(90_000.0), "1d 01h");
        assert_eq!(short_id("12D3KooWabcdefgh"), "abcdefgh");
        assert_eq!(short_id("ab"), "ab");
        assert_eq!(short_name(None, "12D3KooWabcdefgh"), "abcdefgh");
        assert_eq!(short_name(Some("berlin"), "12D3KooWabcdefgh"), "berlin");
        assert_eq!(called(Some("berlin"), &"12D3"), "berlin (12D3)");
        assert_eq!(called(None, &"12D3"), "12D3");
    }
}
