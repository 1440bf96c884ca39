//! Routes by all that tells one from another: what the node wants of them, and what the kernel has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use futures::future::join_all;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::netlink::{Netlink, NetlinkError, refused};

/// Number of the main routing table.
pub const TABLE_MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// The routing table of the host's own addresses, which is looked at first.
pub const TABLE_LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;

/// Metric that the kernel gives a route that comes with an IPv6 address.
const IPV6_ADDRESS_METRIC: u32 = 256;

/// Requests that wait for the kernel's answer at a time: each is a turn of the socket's task, and its answer another.
const PIPELINED: usize = 64;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where the packets go.
    pub target: RouteTarget,
    /// Destinations.
    pub net: IpNet,
    /// Number of the table.
    pub table: u32,
    /// Metric; `None` leaves it to the kernel, and matches any.
    pub metric: Option<u32>,
    /// Source address of the host's own packets; `None` leaves it to the kernel, and matches any.
    pub source: Option<IpAddr>,
}

/// Where the packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// To an interface, as the route that the kernel makes with an address of the interface.
    Connected(u32),
    /// To the interface with this index.
    Interface(u32),
    /// To the host itself: an address of the interface with this index.
    Local(u32),
    /// Nowhere: the sender is told that the destination is unreachable.
    Unreachable,
}

impl Route {
    /// Returns the route of the main table that leads `net` to an interface.
    pub fn to_interface(index: u32, net: IpNet) -> Self {
        Self {
            target: RouteTarget::Interface(index),
            net,
            table: TABLE_MAIN,
            metric: None,
            source: None,
        }
    }

    /// Returns the route that comes with an address of an interface; `None` for the address of a single host.
    pub fn of_address(index: u32, address: IpNet) -> Option<Self> {
        if address.prefix_len() == address.max_prefix_len() {
            return None;
        }
        let (metric, source) = match address.addr() {
            own @ IpAddr::V4(_) => (None, Some(own)),
            IpAddr::V6(_) => (Some(IPV6_ADDRESS_METRIC), None),
        };
        Some(Self {
            target: RouteTarget::Connected(index),
            net: address.trunc(),
            table: TABLE_MAIN,
            metric,
            source,
        })
    }

    /// Returns whether the kernel's route `found` is this one, whoever made it.
    pub fn is(&self, found: &Self) -> bool {
        self.net == found.net
            && self.table == found.table
            && self.output() == found.output()
            && (self.metric.is_none() || self.metric == found.metric)
            && (self.source.is_none() || self.source == found.source)
    }

    /// Returns the interface that it leads to.
    pub fn output(&self) -> Option<u32> {
        match self.target {
            RouteTarget::Connected(index) | RouteTarget::Interface(index) | RouteTarget::Local(index) => {
                Some(index)
            }
            RouteTarget::Unreachable => None,
        }
    }

    fn message(&self) -> RouteMessage {
        let mut message = match self.net {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
        };
        let ipv4 = self.net.addr().is_ipv4();
        match self.target {
            RouteTarget::Connected(_) => message.header.protocol = RouteProtocol::Kernel,
            RouteTarget::Interface(_) => {}
            RouteTarget::Local(_) => message.header.kind = RouteType::Local,
            RouteTarget::Unreachable => message.header.kind = RouteType::Unreachable,
        }
        if let Some(index) = self.output() {
            message.attributes.push(RouteAttribute::Oif(index));
            if ipv4 {
                message.header.scope = match self.target {
                    RouteTarget::Local(_) => RouteScope::Host,
                    _ => RouteScope::Link,
                };
            }
        }
        match u8::try_from(self.table) {
            Ok(table) => message.header.table = table,
            Err(_) => {
                message.header.table = libc::RT_TABLE_UNSPEC;
                message.attributes.push(RouteAttribute::Table(self.table));
            }
        }
        if let Some(metric) = self.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        if let Some(source) = self.source {
            message
                .attributes
                .push(RouteAttribute::PrefSource(route_address(source)));
        }
        message
    }

    /// Reads a message of the kernel; `None` for a route of another kind.
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (mut destination, mut source, mut output, mut metric) = (None, None, None, None);
        let mut table = u32::from(header.table);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(index) => output = Some(*index),
                RouteAttribute::Priority(priority) => metric = Some(*priority),
                RouteAttribute::Table(number) => table = *number,
                // It goes to a router, which is no route of ours.
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
                _ => {}
            }
        }
        let target = match header.kind {
            RouteType::Unicast if header.protocol == RouteProtocol::Kernel => RouteTarget::Connected(output?),
            RouteType::Unicast => RouteTarget::Interface(output?),
            RouteType::Local => RouteTarget::Local(output?),
            RouteType::Unreachable => RouteTarget::Unreachable,
            _ => return None,
        };
        Some(Self {
            target,
            net: IpNet::new(
                destination.unwrap_or(unspecified),
                header.destination_prefix_length,
            )
            .ok()?,
            table,
            metric: Some(metric.unwrap_or(0)),
            source,
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            RouteTarget::Unreachable => write!(f, "unreachable {}", self.net)?,
            _ => write!(f, "{}", self.net)?,
        }
        match self.table {
            TABLE_MAIN => Ok(()),
            table => write!(f, " of table {table}"),
        }
    }
}

impl Netlink {
    /// Returns the routes of every table that lead to an interface, those to its own addresses among them.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn routes_of(&self, index: u32) -> Result<Vec<Route>, NetlinkError> {
        let mut filter = RouteMessage::default();
        filter.attributes.push(RouteAttribute::Oif(index));
        // A kernel that does not know the filter gives all.
        let wanted = |route: &Route| route.output() == Some(index);
        self.read_routes(filter, |message| Route::of(message).filter(wanted))
            .await
    }

    /// Returns the routes of every table that lead nowhere.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn unreachable_routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut filter = RouteMessage::default();
        filter.header.kind = RouteType::Unreachable;
        let wanted = |route: &Route| route.target == RouteTarget::Unreachable;
        self.read_routes(filter, |message| Route::of(message).filter(wanted))
            .await
    }

    /// Reads the routes of both families that the kernel finds by `filter`, those of one network in its order.
    pub(super) async fn read_routes<T>(
        &self,
        mut filter: RouteMessage,
        read: impl Fn(&RouteMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            filter.header.address_family = family;
            let mut messages = std::pin::pin!(self.handle.route().get(filter.clone()).execute());
            loop {
                match messages.try_next().await {
                    Ok(Some(message)) if message.header.address_family == family => {
                        found.extend(read(&message));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        let error = refused("list routes".to_owned(), error);
                        // No such route or table, or no such family.
                        if matches!(error.errno(), Some(Errno::ENOENT | Errno::EAFNOSUPPORT)) {
                            break;
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds a route; one that is there already is as good.
    ///
    /// # Errors
    /// The kernel refuses, or another route has its place.
    pub async fn put_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let added = self.put_routes(std::slice::from_ref(route)).await;
        added.map_err(|(_, refused)| refused)
    }

    /// Adds routes, in their order; those that are there already are as good.
    ///
    /// # Errors
    /// The kernel refuses one, or another route has its place. Those that are there then come with the error.
    pub async fn put_routes(&self, routes: &[Route]) -> Result<(), (Vec<Route>, NetlinkError)> {
        let mut there = Vec::with_capacity(routes.len());
        let mut existing = Vec::new();
        for part in routes.chunks(PIPELINED) {
            let answers = part
                .iter()
                .map(|route| self.handle.route().add(route.message()).execute());
            let mut first_refused = None;
            for (route, answer) in part.iter().zip(join_all(answers).await) {
                match answer.map_err(|error| refused(format!("add the route {route}"), error)) {
                    Ok(()) => there.push(*route),
                    Err(error) if error.errno() == Some(Errno::EEXIST) => existing.push((*route, error)),
                    Err(error) => first_refused = first_refused.or(Some(error)),
                }
            }
            if let Some(refused) = first_refused {
                return Err((there, refused));
            }
        }
        match self.settle_existing(existing).await {
            Ok(()) => Ok(()),
            Err(refused) => Err((there, refused)),
        }
    }

    /// Looks whether routes whose places are taken are there.
    async fn settle_existing(&self, existing: Vec<(Route, NetlinkError)>) -> Result<(), NetlinkError> {
        // The routes of each interface, and those that lead nowhere; there may be tens of thousands.
        let mut listed: HashMap<Option<u32>, HashMap<IpNet, Vec<Route>>> = HashMap::new();
        for (route, error) in existing {
            let by_net = match listed.entry(route.output()) {
                Entry::Occupied(listed) => listed.into_mut(),
                Entry::Vacant(place) => {
                    let routes = match route.output() {
                        Some(index) => self.routes_of(index).await?,
                        None => self.unreachable_routes().await?,
                    };
                    let mut by_net: HashMap<IpNet, Vec<Route>> = HashMap::new();
                    for route in routes {
                        by_net.entry(route.net).or_default().push(route);
                    }
                    place.insert(by_net)
                }
            };
            let same_net = by_net.get(&route.net);
            if same_net.is_some_and(|found| found.iter().any(|found| route.is(found))) {
                continue;
            }
            match route.output() {
                Some(index) => self.settle_existing_route(index, route.net).await?,
                None => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes routes; those that are gone already are no error. Returns why for each that the kernel keeps.
    pub async fn take_routes(&self, routes: &[Route]) -> Vec<NetlinkError> {
        let mut kept = Vec::new();
        for part in routes.chunks(PIPELINED) {
            let answers = join_all(part.iter().map(|route| self.take_route(route))).await;
            kept.extend(answers.into_iter().filter_map(Result::err));
        }
        kept
    }

    /// Removes a route; one that is gone already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn take_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let mut message = route.message();
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        let deleted = self.handle.route().del(message).execute().await;
        let Err(error) = deleted else { return Ok(()) };
        let error = refused(format!("remove the route {route}"), error);
        match error.errno() {
            Some(Errno::ESRCH) => Ok(()),
            _ => Err(error),
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

fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}
