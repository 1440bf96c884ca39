//! The uplinks of a host: the ways by which its connections leave.
//!
//! Each peer is connected by every uplink of the least cost by which it can be, and by none of a higher cost. Without any
//! uplink that was configured there is one, of which nothing is said: its connections leave as the host's routes have them.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use libp2p::Multiaddr;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Socket, Type};

use super::{address::ip_of, limits::MAX_UPLINKS};

/// A way by which connections leave the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// What tells it from the others.
    pub by: UplinkBy,
    /// Its share of what is sent, beside the shares of the others of the same cost; at least 1.
    pub weight: u32,
    /// It is used if no uplink of a lower cost leads to the peer.
    pub cost: u32,
}

/// What tells an uplink from the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UplinkBy {
    /// A network device (`SO_BINDTODEVICE`), which may come later.
    Device(String),
    /// An address of the host. Which packets from it leave where is for the host's routes to say.
    Source(IpAddr),
}

impl fmt::Display for UplinkBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => f.write_str(name),
            Self::Source(ip) => ip.fmt(f),
        }
    }
}

impl UplinkBy {
    /// Has a socket that is neither bound nor connected leave by the uplink, to a host of this family.
    pub(super) fn bind(&self, socket: &Socket, to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Device(name) => socket.bind_device(Some(name.as_bytes())).map_err(|error| {
                let what = match error.kind() {
                    // ENODEV has no kind of its own.
                    _ if error.raw_os_error() == Some(nix::libc::ENODEV) => "is not there".to_owned(),
                    _ => format!("cannot be bound to: {error}"),
                };
                io::Error::new(error.kind(), format!("the device {name} of an uplink {what}"))
            }),
            Self::Source(ip) if ip.is_ipv4() == to.is_ipv4() => {
                let bound = socket.bind(&SocketAddr::new(*ip, 0).into());
                bound.map_err(|error| {
                    let what = format!("the address {ip} of an uplink cannot be bound to: {error}");
                    io::Error::new(error.kind(), what)
                })
            }
            Self::Source(ip) => Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("the uplink {ip} leads to no address of the other family"),
            )),
        }
    }

    /// Says whether connections can leave by the uplink as the host is now.
    ///
    /// # Errors
    /// There is no such device or address, or the process may not bind to it.
    pub fn check(&self) -> io::Result<()> {
        let to = SocketAddr::new(
            match self {
                Self::Source(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
                Self::Source(IpAddr::V4(_)) | Self::Device(_) => Ipv4Addr::LOCALHOST.into(),
            },
            9,
        );
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
        self.bind(&socket, to)
    }

    /// Says whether connections can leave by the uplink to an address, as far as that can be known without trying.
    fn leads_to(&self, address: &Multiaddr) -> bool {
        match (self, ip_of(address)) {
            (Self::Source(own), Some(to)) => own.is_ipv4() == to.is_ipv4(),
            _ => true,
        }
    }
}

/// Which of the uplinks one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UplinkId(u8);

impl UplinkId {
    /// The uplink that every connection counts for of which no other is known.
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0.into()
    }
}

/// The uplinks that were configured, which may be none.
#[derive(Clone, Debug, Default)]
pub(super) struct Uplinks(Arc<[UplinkConfig]>);

impl Uplinks {
    pub(super) fn new(configured: Vec<UplinkConfig>) -> Self {
        Self(configured.into())
    }

    /// Says whether any were configured.
    pub(super) fn are_configured(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns the uplinks, which are one at least.
    pub(super) fn ids(&self) -> impl Iterator<Item = UplinkId> + use<> {
        (0..self.0.len().clamp(1, MAX_UPLINKS) as u8).map(UplinkId)
    }

    /// Returns what was configured of an uplink.
    pub(super) fn get(&self, id: UplinkId) -> Option<&UplinkConfig> {
        self.0.get(id.index())
    }

    pub(super) fn cost(&self, id: UplinkId) -> u32 {
        self.get(id).map_or(0, |uplink| uplink.cost)
    }

    /// Says whether an address of a peer is dialled by an uplink. One through a relay is by the first alone: which uplink it
    /// takes is a matter of the connection to the relay.
    pub(super) fn lead_to(&self, id: UplinkId, address: &Multiaddr) -> bool {
        let is_relayed = super::circuit::Circuit::of(address).is_some();
        let fits = self.get(id).is_none_or(|uplink| uplink.by.leads_to(address));
        if is_relayed { id == UplinkId::FIRST } else { fits }
    }

    /// Returns the uplink of a connection that came in at an address of the host.
    pub(super) fn of_local(&self, address: &Multiaddr) -> Option<UplinkId> {
        let ip = ip_of(address).filter(|_| self.are_configured())?.to_canonical();
        let devices = devices_with(ip);
        let is_at = |uplink: &UplinkConfig| match &uplink.by {
            UplinkBy::Source(source) => *source == ip,
            UplinkBy::Device(name) => devices.contains(name),
        };
        // An address says more than a device that has several.
        let places = self.ids().filter(|id| self.get(*id).is_some_and(is_at));
        places.min_by_key(|id| matches!(self.get(*id).map(|uplink| &uplink.by), Some(UplinkBy::Device(_))))
    }
}

/// Returns the devices of the host that have an address.
fn devices_with(ip: IpAddr) -> Vec<String> {
    let Ok(all) = getifaddrs() else {
        tracing::debug!("the kernel does not list the devices of the host");
        return Vec::new();
    };
    let has_ip = |address: &nix::ifaddrs::InterfaceAddress| {
        let storage = address.address.as_ref()?;
        let v4 = storage.as_sockaddr_in().map(|at| IpAddr::from(at.ip()));
        let own = v4.or_else(|| storage.as_sockaddr_in6().map(|at| at.ip().into()))?;
        (own == ip).then(|| address.interface_name.clone())
    };
    all.filter_map(|address| has_ip(&address)).collect()
}

/// Which way the packets of a connection take, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// The uplink of this node, if it has any and the connection is of one.
    pub uplink: Option<UplinkConfig>,
    /// The host at the other end, of a direct connection. A peer with several uplinks is at several.
    pub host: Option<IpAddr>,
}

impl Way {
    /// Makes a way by an uplink, if it is one of this node's, to a host, if that is known.
    pub fn new(uplink: Option<UplinkConfig>, host: Option<IpAddr>) -> Self {
        Self { uplink, host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(by: UplinkBy) -> UplinkConfig {
        UplinkConfig {
            by,
            weight: 1,
            cost: 0,
        }
    }

    fn source(text: &str) -> UplinkConfig {
        uplink(UplinkBy::Source(text.parse().expect("an address")))
    }

    fn device(name: &str) -> UplinkConfig {
        uplink(UplinkBy::Device(name.to_owned()))
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn without_any_there_is_one_of_which_nothing_is_said() {
        let none = Uplinks::default();
        assert_eq!(none.ids().collect::<Vec<_>>(), [UplinkId::FIRST]);
        assert!(!none.are_configured() && none.get(UplinkId::FIRST).is_none());
        assert_eq!(none.of_local(&address("/ip4/127.0.0.1/tcp/1")), None);
        let relayed = format!(
            "/p2p/{}/p2p-circuit/p2p/{}",
            libp2p::PeerId::random(),
            libp2p::PeerId::random()
        );
        for text in ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1", &relayed] {
            assert!(none.lead_to(UplinkId::FIRST, &address(text)), "{text}");
        }
    }

    #[test]
    fn an_address_leads_to_its_own_family_and_relays_are_reached_by_the_first() {
        let uplinks = Uplinks::new(vec![device("eth0"), source("192.0.2.1"), source("2001:db8::1")]);
        let ids: Vec<_> = uplinks.ids().collect();
        let leads = |text: &str| {
            let address = address(text);
            ids.iter()
                .map(|id| uplinks.lead_to(*id, &address))
                .collect::<Vec<_>>()
        };
        assert_eq!(leads("/ip4/192.0.2.9/tcp/1"), [true, true, false]);
        assert_eq!(leads("/ip6/2001:db8::9/tcp/1"), [true, false, true]);
        assert_eq!(leads("/dns/example.org/tcp/1"), [true, true, true]);
        let circuit = format!(
            "/p2p/{}/p2p-circuit/p2p/{}",
            libp2p::PeerId::random(),
            libp2p::PeerId::random()
        );
        assert_eq!(leads(&circuit), [true, false, false]);
    }

    #[test]
    fn a_connection_that_came_in_is_of_the_uplink_with_its_address() {
        let uplinks = Uplinks::new(vec![device("lo"), source("127.0.0.1"), device("none0")]);
        let of = |text: &str| uplinks.of_local(&address(text)).map(UplinkId::index);
        assert_eq!(of("/ip4/127.0.0.1/tcp/1"), Some(1));
        assert_eq!(of("/ip4/192.0.2.7/udp/1/quic-v1"), None);
        let by_device = Uplinks::new(vec![device("none0"), device("lo")]);
        let found = by_device.of_local(&address("/ip4/127.0.0.1/tcp/1"));
        assert_eq!(found.map(UplinkId::index), Some(1));
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        let to = SocketAddr::from(([192, 0, 2, 1], 9));
        let refused = device("none0").by.bind(&socket, to).expect_err("there is none");
        assert_eq!(refused.to_string(), "the device none0 of an uplink is not there");
        let other = source("2001:db8::1")
            .by
            .bind(&socket, to)
            .expect_err("of the other family");
        assert_eq!(other.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(device("none0").by.check().is_err() && source("2001:db8::1").by.check().is_err());
        assert!(source("127.0.0.1").by.check().is_ok());
    }
}
