//! Routes as the kernel has them, whoever made them: all of a table, and the one that an address is routed by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_indextoname;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType, RouteVia,
};

use super::netlink::{Netlink, NetlinkError, refused};
use super::route::TABLE_MAIN;

/// A route as the kernel has it. Its text is what `ip route` says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    /// Destinations.
    pub net: IpNet,
    /// Number of the table.
    pub table: u32,
    /// Metric; of several routes to one network the lowest counts.
    pub metric: u32,
    /// Index of the interface that the packets leave through; `None` for one that leads nowhere, or to several routers.
    pub output: Option<u32>,
    /// Address of the next router, if there is one.
    pub router: Option<IpAddr>,
    /// What becomes of the packets: empty for those that are sent on, else as `ip route` calls it.
    pub kind: &'static str,
    /// The kernel has made it for an address of an interface.
    pub is_of_address: bool,
}

/// What the kernel does with a packet to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes by this route.
    By(SeenRoute),
    /// It goes nowhere, and its sender hears this.
    Nowhere(Errno),
}

impl SeenRoute {
    /// Reads a message of the kernel; `None` for a route that packets pass by.
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let kind = match header.kind {
            RouteType::Unicast => "",
            RouteType::Local => "local",
            RouteType::Broadcast => "broadcast",
            RouteType::Anycast => "anycast",
            RouteType::Multicast => "multicast",
            RouteType::BlackHole => "blackhole",
            RouteType::Unreachable => "unreachable",
            RouteType::Prohibit => "prohibit",
            _ => return None,
        };
        let mut destination = unspecified;
        let mut seen = Self {
            net: IpNet::from(unspecified),
            table: u32::from(header.table),
            metric: 0,
            output: None,
            router: None,
            kind,
            is_of_address: header.protocol == RouteProtocol::Kernel,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Oif(index) => seen.output = Some(*index),
                RouteAttribute::Priority(metric) => seen.metric = *metric,
                RouteAttribute::Table(table) => seen.table = *table,
                RouteAttribute::Gateway(address) => seen.router = ip(address),
                RouteAttribute::Via(RouteVia::Inet6(address)) => seen.router = Some((*address).into()),
                _ => {}
            }
        }
        seen.net = IpNet::new(destination, header.destination_prefix_length)
            .ok()?
            .trunc();
        Some(seen)
    }

    /// Returns where it leads, in words.
    pub fn whereto(&self) -> String {
        match (self.kind, self.output.and_then(name)) {
            ("", Some(interface)) => format!("through {interface}"),
            ("", None) => "through several routers".to_owned(),
            ("local", _) => "to this host itself".to_owned(),
            (kind, _) => format!("nowhere ({kind})"),
        }
    }

    /// Returns the command that removes it.
    pub fn removal(&self) -> String {
        let ip = if self.net.addr().is_ipv6() { "ip -6" } else { "ip" };
        format!("{ip} route del {self}")
    }
}

impl fmt::Display for SeenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kind.is_empty() {
            write!(f, "{} ", self.kind)?;
        }
        write!(f, "{}", self.net)?;
        match self.router {
            Some(router) if router.is_ipv6() && self.net.addr().is_ipv4() => {
                write!(f, " via inet6 {router}")?
            }
            Some(router) => write!(f, " via {router}")?,
            None => {}
        }
        if let Some(interface) = self.output.and_then(name) {
            write!(f, " dev {interface}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        match self.table {
            TABLE_MAIN => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

fn name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

impl Netlink {
    /// Returns the routes of a table, of both families, in the order in which the kernel has those of one network.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn routes_of_table(&self, table: u32) -> Result<Vec<SeenRoute>, NetlinkError> {
        let mut filter = RouteMessage::default();
        set_table(&mut filter, table);
        // A kernel that does not know the filter gives all.
        let wanted = |route: &SeenRoute| route.table == table;
        self.read_routes(filter, |message| SeenRoute::of(message).filter(wanted))
            .await
    }

    /// Returns what the kernel does with an unmarked packet of this host to an address, from one of its own if `source`
    /// says so.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn way_to(&self, to: IpAddr, source: Option<IpAddr>) -> Result<Way, NetlinkError> {
        let mut message = RouteMessage::default();
        let len = IpNet::from(to).max_prefix_len();
        message.header.address_family = match to {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = len;
        message.header.flags = match to {
            // Without the first the answer names the main table, whichever it is (net/ipv4/route.c).
            IpAddr::V4(_) => RouteFlags::LookupTable | RouteFlags::FibMatch,
            IpAddr::V6(_) => RouteFlags::FibMatch,
        };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        if let Some(source) = source {
            message.header.source_prefix_length = len;
            message.attributes.push(RouteAttribute::Source(source.into()));
        }
        let mut answers = std::pin::pin!(self.handle.route().get(message).execute());
        let answer = answers.try_next().await;
        let refused = |error| refused(format!("look up the route to {to}"), error);
        match answer.map_err(refused) {
            Ok(Some(message)) => Ok(match SeenRoute::of(&message) {
                Some(route) => Way::By(route),
                None => Way::Nowhere(Errno::ENETUNREACH),
            }),
            Ok(None) => Ok(Way::Nowhere(Errno::ENETUNREACH)),
            Err(error) => match error.errno() {
                // What routes and rules that lead nowhere have the kernel say.
                Some(
                    errno @ (Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH
                    | Errno::EACCES
                    | Errno::EINVAL
                    | Errno::EAGAIN),
                ) => Ok(Way::Nowhere(errno)),
                _ => Err(error),
            },
        }
    }
}

fn set_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(table) => message.header.table = table,
        Err(_) => {
            message.header.table = libc::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(table));
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
