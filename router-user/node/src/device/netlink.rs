//! Links, addresses and routes, through rtnetlink.
//!
//! All information comes from netlink and none from sysfs, which after a bare `setns` still shows another namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp,
    XdpAttached,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;
use tokio::task::JoinHandle;

/// Why a request to the kernel failed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The kernel gives no netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused a request.
    #[error("cannot {action}")]
    Refused {
        /// What was asked for.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A route to the same network exists.
    #[error(
        "cannot add the route to {net}: one exists already through {through}; remove it or narrow allowed_ips"
    )]
    RouteExists {
        /// The destination.
        net: IpNet,
        /// Name of the interface of the other route, or `another interface`.
        through: String,
    },
}

impl NetlinkError {
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Open(_) | Self::RouteExists { .. } => None,
        }
    }
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index of the interface.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether the interface is administratively up.
    pub up: bool,
    /// Hardware address, if it is an Ethernet interface.
    pub ethernet_address: Option<[u8; 6]>,
}

/// A netlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread; a task on the current runtime serves it.
    ///
    /// # Errors
    /// The kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    /// Opens a socket as [`Netlink::open`] does, whose requests for lists the kernel filters, so that a host with many
    /// routes is asked for a few of them only.
    ///
    /// # Errors
    /// The kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open_filtering() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Open)?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    /// Returns the interface called `name`, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Interface>, NetlinkError> {
        let links = self.handle.link().get().match_name(name).execute();
        self.one_link(links, || format!("look up the interface {name}"))
            .await
    }

    /// Returns the interface with `index`, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Interface>, NetlinkError> {
        let links = self.handle.link().get().match_index(index).execute();
        self.one_link(links, || format!("look up the interface with index {index}"))
            .await
    }

    /// Returns whether an XDP program is attached to an interface.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn has_xdp(&self, index: u32) -> Result<bool, NetlinkError> {
        let mut attributes = self.link_attributes(index).await?.into_iter();
        Ok(attributes.any(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => xdp
                .iter()
                .any(|xdp| matches!(xdp, LinkXdp::Attached(attached) if *attached != XdpAttached::None)),
            _ => false,
        }))
    }

    /// Returns the kind of an interface's root qdisc.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn root_qdisc(&self, index: u32) -> Result<Option<String>, NetlinkError> {
        let mut attributes = self.link_attributes(index).await?.into_iter();
        Ok(attributes.find_map(|attribute| match attribute {
            LinkAttribute::Qdisc(kind) => Some(kind),
            _ => None,
        }))
    }

    async fn link_attributes(&self, index: u32) -> Result<Vec<LinkAttribute>, NetlinkError> {
        let mut links = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        let message = links.try_next().await;
        let message =
            message.map_err(|error| refused(format!("look up the interface with index {index}"), error))?;
        Ok(message.map_or_else(Vec::new, |message| message.attributes))
    }

    async fn one_link(
        &self,
        links: impl futures::Stream<Item = Result<LinkMessage, rtnetlink::Error>>,
        action: impl FnOnce() -> String,
    ) -> Result<Option<Interface>, NetlinkError> {
        let mut links = std::pin::pin!(links);
        match links.try_next().await.map_err(|error| refused(action(), error)) {
            Ok(message) => Ok(message.map(Interface::from)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the MTU of an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.set_link(message, || format!("set the MTU to {mtu}")).await
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.set_link(message, || "bring the device up".to_owned()).await
    }

    /// Keeps an interface from giving itself an IPv6 link-local address, and so from soliciting routers.
    ///
    /// # Errors
    /// The kernel refuses for another reason than that it has no IPv6.
    pub async fn disable_ipv6_autoconfiguration(&self, index: u32) -> Result<(), NetlinkError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
            .build();
        match self
            .set_link(message, || "turn IPv6 autoconfiguration off".to_owned())
            .await
        {
            Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn set_link(
        &self,
        message: LinkMessage,
        action: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| refused(action(), error))
    }

    /// Removes an interface with its addresses and routes; one that is gone already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_link(&self, index: u32) -> Result<(), NetlinkError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = refused("remove the device".to_owned(), error);
                if error.errno() == Some(Errno::ENODEV) {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Gives an interface an address; an IPv6 address is used at once, without duplicate address detection.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len());
        let message = request.message_mut();
        message
            .attributes
            .retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        if address.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|error| {
            let hint = if address.addr().is_ipv6() {
                " (is IPv6 disabled on this host?)"
            } else {
                ""
            };
            refused(format!("add the address {address}{hint}"), error)
        })
    }

    /// Returns the addresses of an interface with the lengths of their prefixes.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list addresses".to_owned(), error))?;
        let addresses = messages.iter().filter_map(|message| {
            let own = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            // IPv6 addresses without a remote end come as IFA_ADDRESS alone.
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            IpNet::new(own.or(any)?, message.header.prefix_len).ok()
        });
        Ok(addresses.collect())
    }

    /// Routes a network to an interface; metric and source address are the kernel's choice. A route of that network to
    /// the same interface, such as the one that comes with an address, is as good.
    ///
    /// # Errors
    /// The kernel refuses, or the network is routed to another interface.
    pub async fn add_route(&self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        match self.handle.route().add(route_message(index, net)).execute().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = refused(format!("add the route to {net}"), error);
                if error.errno() != Some(Errno::EEXIST) {
                    return Err(error);
                }
                self.settle_existing_route(index, net).await
            }
        }
    }

    pub(super) async fn settle_existing_route(&self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        let outputs: Vec<u32> = self
            .main_routes(net.addr())
            .await?
            .into_iter()
            .filter(|route| route.net == net)
            .map(|route| route.output)
            .collect();
        if outputs.contains(&index) {
            return Ok(());
        }
        let other = match outputs.first() {
            Some(output) => self.link_by_index(*output).await?,
            None => None,
        };
        let through = other.map_or_else(|| "another interface".to_owned(), |link| link.name);
        Err(NetlinkError::RouteExists { net, through })
    }

    /// Removes a route that [`Netlink::add_route`] added.
    ///
    /// # Errors
    /// The kernel refuses, or has no such route.
    pub async fn remove_route(&self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        let deletion = self.handle.route().del(route_message(index, net)).execute().await;
        deletion.map_err(|error| refused(format!("remove the route to {net}"), error))
    }

    /// Returns the networks that the main table routes to an interface.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn routes(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let mut routes = self.main_routes(Ipv4Addr::UNSPECIFIED.into()).await?;
        routes.extend(self.main_routes(Ipv6Addr::UNSPECIFIED.into()).await?);
        Ok(routes
            .into_iter()
            .filter(|route| route.output == index)
            .map(|route| route.net)
            .collect())
    }

    /// Returns every unicast route of the main table in the family of `family`.
    async fn main_routes(&self, family: IpAddr) -> Result<Vec<Route>, NetlinkError> {
        self.table_routes(RouteHeader::RT_TABLE_MAIN, family).await
    }

    /// Returns the addresses that the host takes packets for on an interface: those with a route in the local table. An
    /// IPv6 address gets its route from a work queue, some time after the interface came up.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn local_addresses(&self, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            routes.extend(self.table_routes(libc::RT_TABLE_LOCAL, family).await?);
        }
        Ok(routes
            .into_iter()
            .filter(|route| route.output == index && route.net.prefix_len() == route.net.max_prefix_len())
            .map(|route| route.net.addr())
            .collect())
    }

    async fn table_routes(&self, table: u8, family: IpAddr) -> Result<Vec<Route>, NetlinkError> {
        let mut filter = RouteMessage::default();
        filter.header.table = table;
        filter.header.address_family = match family {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let mut routes = Vec::new();
        let mut messages = std::pin::pin!(self.handle.route().get(filter).execute());
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list routes".to_owned(), error))?
        {
            routes.extend(Route::of(&message, table, family));
        }
        Ok(routes)
    }
}

struct Route {
    net: IpNet,
    output: u32,
}

impl Route {
    fn of(message: &RouteMessage, table: u8, family: IpAddr) -> Option<Self> {
        if message.header.table != table {
            return None;
        }
        let destination = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let unspecified = match family {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let output = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })?;
        let net = IpNet::new(
            destination.unwrap_or(unspecified),
            message.header.destination_prefix_length,
        )
        .ok()?;
        Some(Self { net, output })
    }
}

fn route_message(index: u32, net: IpNet) -> RouteMessage {
    match net {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .build(),
    }
}

impl From<LinkMessage> for Interface {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            ethernet_address: None,
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) if ethernet => {
                    link.ethernet_address = address.as_slice().try_into().ok();
                }
                _ => {}
            }
        }
        link
    }
}

pub(super) fn refused(action: String, error: rtnetlink::Error) -> NetlinkError {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    NetlinkError::Refused { action, source }
}
