//! What an operator may say of TCP connections: how they share the path, and by which proxy they leave.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use libp2p::multiaddr::Protocol;
use url::{Host, Url};

use super::names::is_dns_name;

/// Longest name of a congestion control that Linux has (`TCP_CA_NAME_MAX`, with the byte that ends it).
const MAX_CONGESTION_NAME: usize = 15;

/// The port of a proxy over HTTP or SOCKS whose URL names none.
const HTTP_PORT: u16 = 80;
const SOCKS_PORT: u16 = 1080;

/// Longest password of a proxy, and longest user name: RFC 1929 has a byte for their lengths.
pub const MAX_PROXY_PASSWORD: usize = 255;

/// How TCP connections between nodes are made; by default as the host makes them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpConfig {
    /// The congestion control of connections that this node dials and accepts (`TCP_CONGESTION`); `None` for the host's.
    /// Connections over QUIC have CUBIC for `cubic`, New Reno for `reno`, BBR for `bbr`, and for all others and for `None`
    /// CUBIC that bears losses which no queue explains.
    pub congestion: Option<CongestionControl>,
    /// Whether connections are Multipath TCP (RFC 8684) with peers that take part, and TCP with all others.
    pub multipath: bool,
    /// The proxy through which peers are dialled.
    pub proxy: Option<ProxyConfig>,
}

/// The name of a congestion control of the kernel, such as `cubic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CongestionControl(String);

impl CongestionControl {
    /// Returns `name` if it can be one; whether the kernel has it shows when the network starts.
    pub fn new(name: &str) -> Option<Self> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_name = (1..=MAX_CONGESTION_NAME).contains(&name.len()) && name.bytes().all(is_letter);
        is_name.then(|| Self(name.to_owned()))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A proxy for TCP connections, and who is dialled without it.
///
/// QUIC cannot go through it: addresses over QUIC are dialled only where no proxy is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// What the proxy speaks.
    pub(super) protocol: ProxyProtocol,
    /// Where it is.
    pub(super) host: ProxyHost,
    pub(super) port: u16,
    pub(super) credentials: Option<Credentials>,
    /// Who is dialled without it.
    direct: Vec<ProxyExemption>,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyProtocol {
    /// HTTP with the method CONNECT (RFC 9110).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

/// A host by address or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProxyHost {
    Ip(IpAddr),
    Name(String),
}

/// By what a node shows a proxy that it may use it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// Whom a node dials without its proxy: the hosts of a network, or a name and all that end in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyExemption {
    /// The hosts of a network.
    Net(IpNet),
    /// A name in DNS, and all names below it.
    Domain(String),
}

/// Why a text is no proxy, or no exemption from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyConfigError {
    /// The text is no URL.
    #[error("it is no URL: {0}")]
    Url(#[from] url::ParseError),
    /// The URL is of another protocol.
    #[error("a proxy that speaks {0:?} is not supported")]
    Protocol(String),
    /// The URL names no host, or one that cannot be.
    #[error("it names no host")]
    NoHost,
    /// The URL has more than a proxy has.
    #[error("it has more than a protocol, a user with a password, a host and a port")]
    Excess,
    /// The user name or password is too long or no text.
    #[error("its user name and its password have to be texts of 1 to {MAX_PROXY_PASSWORD} bytes")]
    Credentials,
    /// The URL has no user, or has a password that is said elsewhere.
    #[error("it has no user, or a password beside that of the file")]
    NoUser,
    /// The text is neither a network nor a name.
    #[error("it is neither an address, a network nor a name")]
    Exemption,
}

impl ProxyConfig {
    /// Reads the URL of a proxy, such as `socks5://192.0.2.8:1080` or `http://user:password@proxy.example.org:3128`, that
    /// is used for all peers but those at `direct`. Characters of a user name or password that have a meaning in a URL
    /// are percent-encoded.
    ///
    /// # Errors
    /// The text is no URL of a proxy.
    pub fn new(url: &str, direct: Vec<ProxyExemption>) -> Result<Self, ProxyConfigError> {
        let url = Url::parse(url)?;
        let (protocol, default_port) = match url.scheme() {
            "http" => (ProxyProtocol::Http, HTTP_PORT),
            // Names are looked up by the proxy in any case.
            "socks5" | "socks5h" => (ProxyProtocol::Socks5, SOCKS_PORT),
            other => return Err(ProxyConfigError::Protocol(other.to_owned())),
        };
        let host = match url.host().ok_or(ProxyConfigError::NoHost)? {
            Host::Ipv4(ip) => ProxyHost::Ip(ip.into()),
            Host::Ipv6(ip) => ProxyHost::Ip(ip.into()),
            // Of a protocol that the crate does not know, an address in figures is a name too.
            Host::Domain(name) => match name.parse() {
                Ok(ip) => ProxyHost::Ip(ip),
                Err(_) if is_dns_name(name) => ProxyHost::Name(name.to_owned()),
                Err(_) => return Err(ProxyConfigError::NoHost),
            },
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyConfigError::Excess);
        }
        let port = match url.port_or_known_default().unwrap_or(default_port) {
            0 => return Err(ProxyConfigError::NoHost),
            port => port,
        };
        Ok(Self {
            protocol,
            host,
            port,
            credentials: Credentials::of(&url)?,
            direct,
        })
    }

    /// Reads the URL of a proxy as [`ProxyConfig::new`] does, with a user and no password:
    /// [`ProxyConfig::set_password`] sets it.
    ///
    /// # Errors
    /// The text is no URL of a proxy with a user and no password.
    pub fn of_user(url: &str, direct: Vec<ProxyExemption>) -> Result<Self, ProxyConfigError> {
        let mut parsed = Url::parse(url)?;
        if parsed.username().is_empty() || parsed.password().is_some() {
            return Err(ProxyConfigError::NoUser);
        }
        // A stand-in until it is set; a URL without a host takes none, and is refused below.
        let _refused = parsed.set_password(Some("-"));
        Self::new(parsed.as_str(), direct)
    }

    /// Sets the password of the user.
    ///
    /// # Errors
    /// There is no user, or the password is empty or too long.
    pub fn set_password(&mut self, password: &str) -> Result<(), ProxyConfigError> {
        if !(1..=MAX_PROXY_PASSWORD).contains(&password.len()) {
            return Err(ProxyConfigError::Credentials);
        }
        let credentials = self.credentials.as_mut().ok_or(ProxyConfigError::NoUser)?;
        credentials.password = password.to_owned();
        Ok(())
    }

    /// Returns the host to connect to, by address or name, and its port.
    pub fn destination(&self) -> (String, u16) {
        let host = match &self.host {
            ProxyHost::Ip(ip) => ip.to_string(),
            ProxyHost::Name(name) => name.clone(),
        };
        (host, self.port)
    }

    /// Says whether a host at this address is dialled through the proxy.
    pub(super) fn takes_ip(&self, ip: IpAddr) -> bool {
        // Such an address means the host that uses it.
        let is_near = ip.is_loopback() || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let is_direct =
            |exemption: &ProxyExemption| matches!(exemption, ProxyExemption::Net(net) if net.contains(&ip));
        !is_near && !self.direct.iter().any(is_direct)
    }

    /// Says whether a host of this name is dialled through the proxy, which then looks the name up.
    pub(super) fn takes_name(&self, name: &str) -> bool {
        let is_direct = |exemption: &ProxyExemption| match exemption {
            ProxyExemption::Domain(domain) => is_within(name, domain),
            ProxyExemption::Net(_) => false,
        };
        !self.direct.iter().any(is_direct)
    }
}

/// Shows where the proxy is, without the password.
impl fmt::Display for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Socks5 => "socks5",
        };
        let port = self.port;
        match &self.host {
            ProxyHost::Ip(IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{port}"),
            ProxyHost::Ip(ip) => write!(f, "{scheme}://{ip}:{port}"),
            ProxyHost::Name(name) => write!(f, "{scheme}://{name}:{port}"),
        }
    }
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("url", &format_args!("{self}"))
            .field("has_credentials", &self.credentials.is_some())
            .field("direct", &self.direct)
            .finish()
    }
}

impl Credentials {
    fn of(url: &Url) -> Result<Option<Self>, ProxyConfigError> {
        let text = |encoded: &str| -> Result<String, ProxyConfigError> {
            let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8();
            let decoded = decoded.map_err(|_not_utf8| ProxyConfigError::Credentials)?;
            match (1..=MAX_PROXY_PASSWORD).contains(&decoded.len()) {
                true => Ok(decoded.into_owned()),
                false => Err(ProxyConfigError::Credentials),
            }
        };
        match (url.username(), url.password()) {
            ("", None) => Ok(None),
            (user, password) => Ok(Some(Self {
                user: text(user)?,
                password: text(password.unwrap_or_default())?,
            })),
        }
    }
}

impl FromStr for ProxyExemption {
    type Err = ProxyConfigError;

    fn from_str(text: &str) -> Result<Self, ProxyConfigError> {
        if let Ok(net) = text.parse() {
            return Ok(Self::Net(net));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(ip.into()));
        }
        let domain = text.strip_prefix('.').unwrap_or(text);
        match is_dns_name(domain) {
            true => Ok(Self::Domain(domain.to_owned())),
            false => Err(ProxyConfigError::Exemption),
        }
    }
}

/// Says whether `name` is `domain` or below it.
fn is_within(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else {
        return false;
    };
    let (before, end) = name.as_bytes().split_at(start);
    end.eq_ignore_ascii_case(domain.as_bytes()) && matches!(before.last(), None | Some(b'.'))
}

/// Returns the name and port of an address over TCP that begins with a name.
pub(super) fn named_tcp_destination(address: &libp2p::Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter().peekable();
    let name = match parts.next()? {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    let Some(Protocol::Tcp(port @ 1..)) = parts.next() else {
        return None;
    };
    parts.next_if_eq(&Protocol::Tls);
    parts
        .all(|part| matches!(part, Protocol::P2p(_)))
        .then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, direct: &[&str]) -> Result<ProxyConfig, ProxyConfigError> {
        let direct = direct.iter().map(|text| text.parse().expect("an exemption"));
        ProxyConfig::new(url, direct.collect())
    }

    #[test]
    fn a_url_says_what_a_proxy_speaks_where_it_is_and_who_may_use_it() {
        for (url, shown, credentials) in [
            ("http://192.0.2.8:3128", "http://192.0.2.8:3128", None),
            ("http://proxy.example.org/", "http://proxy.example.org:80", None),
            ("socks5://192.0.2.8", "socks5://192.0.2.8:1080", None),
            (
                "socks5h://[2001:db8::8]:9050",
                "socks5://[2001:db8::8]:9050",
                None,
            ),
            (
                "http://node:p%40ss%3A@proxy.example.org:8080",
                "http://proxy.example.org:8080",
                Some(("node", "p@ss:")),
            ),
        ] {
            let proxy = proxy(url, &[]).unwrap();
            assert_eq!(proxy.to_string(), shown);
            let found = proxy.credentials.as_ref();
            let found = found.map(|found| (found.user.as_str(), found.password.as_str()));
            assert_eq!(found, credentials);
            assert!(!format!("{proxy:?}").contains("p@ss"), "{proxy:?}");
        }
        assert!(matches!(
            proxy("socks5://192.0.2.8", &[]).unwrap().host,
            ProxyHost::Ip(_)
        ));
    }

    #[test]
    fn a_password_may_be_told_apart_from_the_url() {
        let of_user = |url: &str| ProxyConfig::of_user(url, Vec::new());
        for scheme in ["http", "socks5"] {
            let mut told = of_user(&format!("{scheme}://node@192.0.2.8:3128")).unwrap();
            told.set_password("p@ss:").unwrap();
            let whole = proxy(&format!("{scheme}://node:p%40ss%3A@192.0.2.8:3128"), &[]);
            assert_eq!(told, whole.unwrap());
            assert_eq!(told.destination(), ("192.0.2.8".to_owned(), 3128));
            let long = "a".repeat(256);
            assert!(told.set_password(&long).is_err() && told.set_password("").is_err());
        }
        for url in [
            "http://192.0.2.8",
            "http://node:x@192.0.2.8",
            "socks5://",
            "http://:x@192.0.2.8",
        ] {
            assert_eq!(of_user(url), Err(ProxyConfigError::NoUser), "{url}");
        }
        assert_eq!(
            of_user("https://node@192.0.2.8").unwrap_err().to_string(),
            "a proxy that speaks \"https\" is not supported"
        );
    }

    #[test]
    fn what_is_no_proxy_is_refused_with_the_reason() {
        let long = "a".repeat(256);
        for (url, expected) in [
            ("proxy.example.org:3128", "speaks \"proxy.example.org\""),
            ("3128", "no URL"),
            ("https://192.0.2.8", "speaks \"https\""),
            ("socks4://192.0.2.8", "speaks \"socks4\""),
            ("socks5://", "no host"),
            ("http://192.0.2.8:0", "no host"),
            ("socks5://a..b", "no host"),
            ("http://192.0.2.8/path", "more than"),
            ("http://192.0.2.8/?query", "more than"),
            (&format!("http://{long}:x@192.0.2.8"), "1 to 255 bytes"),
            ("http://user@192.0.2.8", "1 to 255 bytes"),
            ("http://%FF:x@192.0.2.8", "1 to 255 bytes"),
        ] {
            let error = proxy(url, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
        for text in ["", "192.0.2.0/33", "a b"] {
            assert!(text.parse::<ProxyExemption>().is_err(), "{text}");
        }
    }

    #[test]
    fn who_is_near_or_exempt_is_dialled_without_the_proxy() {
        let proxy = proxy(
            "socks5://192.0.2.8",
            &["198.51.100.0/24", "2001:db8::1", ".example.org"],
        )
        .unwrap();
        for (ip, expected) in [
            ("203.0.113.1", true),
            ("198.51.100.7", false),
            ("2001:db8::1", false),
            ("2001:db8::2", true),
            ("127.0.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(proxy.takes_ip(ip.parse().unwrap()), expected, "{ip}");
        }
        for (name, expected) in [
            ("example.org", false),
            ("vpn.Example.org", false),
            ("badexample.org", true),
            ("example.com", true),
            ("org", true),
        ] {
            assert_eq!(proxy.takes_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_over_tcp_is_a_destination() {
        let of = |text: &str| named_tcp_destination(&text.parse().unwrap());
        assert_eq!(
            of("/dns4/vpn.example.org/tcp/443"),
            Some(("vpn.example.org".to_owned(), 443))
        );
        assert_eq!(
            of("/dns4/vpn.example.org/tcp/443/tls"),
            Some(("vpn.example.org".to_owned(), 443))
        );
        for other in [
            "/dns/vpn.example.org/udp/443/quic-v1",
            "/dnsaddr/vpn.example.org",
            "/ip4/192.0.2.1/tcp/443",
            "/dns/vpn.example.org/tcp/0",
            "/dns/vpn.example.org/tcp/443/ws",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_congestion_control_has_a_name_that_the_kernel_may_have() {
        assert_eq!(CongestionControl::new("bbr").unwrap().name(), "bbr");
        for text in ["", "a name", "sixteen_letters_", "bbr\0"] {
            assert_eq!(CongestionControl::new(text), None, "{text}");
        }
    }
}
