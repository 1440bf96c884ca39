//! Lists the routes of the host's main table that are not the node's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use stream_router_engine::route_plan::HostRoute;

use super::netlink::{Interface, Netlink, NetlinkError, refused};

/// Name of what a route with several next hops leads through.
const SEVERAL: &str = "several routers";

impl Netlink {
    /// Returns the unicast routes of the main table that do not lead to the interface called `device`.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn host_routes(&self, device: &str) -> Result<Vec<HostRoute>, NetlinkError> {
        let interfaces = self.interfaces().await?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let mut messages = std::pin::pin!(self.handle.route().get(filter).execute());
            while let Some(message) = messages
                .try_next()
                .await
                .map_err(|error| refused("list routes".to_owned(), error))?
            {
                routes.extend(host_route(&message, &interfaces));
            }
        }
        routes.retain(|route| route.through != device);
        Ok(routes)
    }

    async fn interfaces(&self) -> Result<HashMap<u32, Interface>, NetlinkError> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list interfaces".to_owned(), error))?;
        let interfaces = messages.into_iter().map(Interface::from);
        Ok(interfaces.map(|interface| (interface.index, interface)).collect())
    }
}

fn host_route(message: &RouteMessage, interfaces: &HashMap<u32, Interface>) -> Option<HostRoute> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut output, mut by_router) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => output = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                by_router = true
            }
            _ => {}
        }
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let interface = output.and_then(|index| interfaces.get(&index));
    let net = IpNet::new(
        destination.unwrap_or(unspecified),
        header.destination_prefix_length,
    );
    Some(HostRoute {
        net: net.ok()?.trunc(),
        through: interface.map_or_else(|| SEVERAL.to_owned(), |interface| interface.name.clone()),
        is_lan: !by_router && interface.is_some_and(|interface| interface.ethernet_address.is_some()),
    })
}
