//! Addresses that begin with a name, and the questions what the names stand for.

mod resolver;

use std::{
    borrow::Cow,
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    address::tcp_destination,
    tcp_config::{ProxyConfig, named_tcp_destination},
    transport::SocketMarks,
};
use resolver::Query;

/// How long a lookup may take, with all of its questions.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// Most lookups at a time. Others wait.
const MAX_LOOKUPS: usize = 32;

/// Most bytes of a name.
const MAX_NAME: usize = 253;

/// Most bytes between two dots of a name.
const MAX_LABEL: usize = 63;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// IP addresses of both versions (`/dns`).
    Ip,
    /// IPv4 addresses (`/dns4`).
    Ip4,
    /// IPv6 addresses (`/dns6`).
    Ip6,
    /// Whole addresses (`/dnsaddr`).
    Addresses,
}

/// An address that begins with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedAddress<'a> {
    pub(super) kind: NameKind,
    pub(super) name: Cow<'a, str>,
    /// What stands behind the name.
    pub(super) rest: Multiaddr,
}

impl<'a> NamedAddress<'a> {
    /// Takes an address apart; `None` if it begins with no name.
    pub(super) fn of(address: &'a Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let (kind, name) = match parts.next()? {
            Protocol::Dns(name) => (NameKind::Ip, name),
            Protocol::Dns4(name) => (NameKind::Ip4, name),
            Protocol::Dns6(name) => (NameKind::Ip6, name),
            Protocol::Dnsaddr(name) => (NameKind::Addresses, name),
            _ => return None,
        };
        Some(Self {
            kind,
            name,
            rest: parts.collect(),
        })
    }
}

/// Says whether a name can stand in DNS: labels of letters, digits, hyphens and underscores, of at most 63 bytes, with dots
/// between them, of at most 253 bytes in all. It may end in a dot.
pub fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_part)
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

/// What a name of a peer stands for.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) peer: PeerId,
    /// The address that begins with the name.
    pub(super) named: Multiaddr,
    pub(super) addresses: Result<Vec<Multiaddr>, NameError>,
}

/// Why a name stands for no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("there is no name {name} (asked {asked})")]
    NoName { name: String, asked: String },
    #[error("{name} has no address of this kind (asked {asked})")]
    NoAddress { name: String, asked: String },
    #[error("cannot look up {name}: {cause} (asked {asked})")]
    NoAnswer {
        name: String,
        cause: String,
        asked: String,
    },
    #[error("{name} is {ip}, which is inside the tunnel or no address of a host")]
    Unusable { name: String, ip: IpAddr },
    #[error(
        "cannot look up {name}: its resolver {resolver} is inside the tunnel; name one outside in /etc/resolv.conf"
    )]
    ResolverInside { name: String, resolver: IpAddr },
}

impl NameError {
    /// Says whether what the name stood for before is known to be wrong.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NoName { .. } | Self::NoAddress { .. } | Self::Unusable { .. } => true,
            Self::NoAnswer { .. } | Self::ResolverInside { .. } => false,
        }
    }
}

/// How hosts are looked up: over sockets with these marks, and not inside the tunnel.
#[derive(Clone)]
pub(super) struct HostLookup {
    marks: SocketMarks,
    is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// The lookups of names of peers, of which each is one at a time.
pub(super) struct Lookups {
    hosts: HostLookup,
    /// The proxy, which looks names up itself.
    proxy: Option<ProxyConfig>,
    asked: HashSet<(PeerId, Multiaddr)>,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    permits: Arc<Semaphore>,
}

impl HostLookup {
    /// Creates lookups over sockets with these marks. An address that `is_inner` names is inside the tunnel.
    pub(super) fn new(marks: SocketMarks, is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) -> Self {
        Self { marks, is_inner }
    }

    /// Returns the marks of the sockets of the node.
    pub(super) fn marks(&self) -> SocketMarks {
        self.marks
    }

    /// Returns where a host is that is no peer.
    pub(super) async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, NameError> {
        let named = Multiaddr::from(Protocol::Dns(name.into())).with(Protocol::Tcp(port));
        let addresses = self.resolve(None, &named).await?;
        Ok(addresses.iter().filter_map(tcp_destination).collect())
    }

    async fn resolve(&self, peer: Option<PeerId>, named: &Multiaddr) -> Result<Vec<Multiaddr>, NameError> {
        let query = Query {
            marks: self.marks,
            is_inner: Arc::clone(&self.is_inner),
            peer,
        };
        match timeout(LOOKUP_LIMIT, query.resolve(named)).await {
            Ok(addresses) => addresses,
            Err(_elapsed) => Err(query.too_slow(named)),
        }
    }
}

impl Lookups {
    /// Creates lookups. A name that `proxy` takes stands for itself.
    pub(super) fn new(hosts: HostLookup, proxy: Option<ProxyConfig>) -> Self {
        Self {
            hosts,
            proxy,
            asked: HashSet::new(),
            running: FuturesUnordered::new(),
            permits: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }

    /// Says whether no answer is to come.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Asks what the name of an address stands for, unless that is being asked already.
    pub(super) fn ask(&mut self, peer: PeerId, named: Multiaddr) {
        if !self.asked.insert((peer, named.clone())) {
            return;
        }
        let (hosts, permits) = (self.hosts.clone(), Arc::clone(&self.permits));
        let stays = self.proxy.as_ref().is_some_and(|proxy| {
            let name = named_tcp_destination(&named);
            name.is_some_and(|(name, _)| proxy.takes_name(&name))
        });
        let lookup = async move {
            let addresses = if stays {
                Ok(vec![named.clone()])
            } else {
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                hosts.resolve(Some(peer), &named).await
            };
            Answer {
                peer,
                named,
                addresses,
            }
        };
        self.running.push(lookup.boxed());
    }

    /// Waits for the next answer; none comes if nothing was asked.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        let answer = self.running.next().await?;
        self.asked.remove(&(answer.peer, answer.named.clone()));
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_name_is_taken_apart() {
        let address: Multiaddr = "/dns4/vpn.example.org/udp/4001/quic-v1"
            .parse()
            .expect("an address");

        let named = NamedAddress::of(&address).expect("a name");

        assert_eq!((named.kind, &*named.name), (NameKind::Ip4, "vpn.example.org"));
        assert_eq!(named.rest.to_string(), "/udp/4001/quic-v1");
        assert!(NamedAddress::of(&"/ip4/192.0.2.1/tcp/1".parse().expect("an address")).is_none());
    }

    #[test]
    fn names_are_those_that_dns_can_have() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        for (name, is_name) in [
            ("vpn.example.org", true),
            ("vpn.example.org.", true),
            ("host", true),
            ("_x.xn--bcher-kva.example", true),
            ("a..b", false),
            (".", false),
            ("a b", false),
            ("bücher.example", false),
            (&long_label, false),
            (&long_name, false),
        ] {
            assert_eq!(is_dns_name(name), is_name, "{name}");
        }
    }
}
