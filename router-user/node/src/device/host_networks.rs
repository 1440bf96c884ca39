//! Lists the networks that the host routes elsewhere than to the device.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::libc::RT_TABLE_LOCAL;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::netlink::{Netlink, NetlinkError, refused};

impl Netlink {
    /// Returns the networks and addresses that the main and the local table keep from the interface `device`: the
    /// host's own, and those it routes to other interfaces or nowhere. Policy routing by other tables is not looked at.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn networks_elsewhere(&self, device: u32) -> Result<BTreeSet<IpNet>, NetlinkError> {
        let mut networks = BTreeSet::new();
        let families = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for (filter, unspecified) in families.into_iter().zip([
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ]) {
            let mut messages = std::pin::pin!(self.handle.route().get(filter).execute());
            while let Some(message) = messages
                .try_next()
                .await
                .map_err(|error| refused("list routes".to_owned(), error))?
            {
                networks.extend(elsewhere(&message, device, unspecified));
            }
        }
        Ok(networks)
    }
}

fn elsewhere(message: &RouteMessage, device: u32, unspecified: IpAddr) -> Option<IpNet> {
    let header = &message.header;
    let to_device = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::Oif(index) if *index == device));
    let ours = header.kind == RouteType::Unicast && to_device;
    if ours || ![RouteHeader::RT_TABLE_MAIN, RT_TABLE_LOCAL].contains(&header.table) {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let net = IpNet::new(
        destination.unwrap_or(unspecified),
        header.destination_prefix_length,
    );
    net.ok()
}
