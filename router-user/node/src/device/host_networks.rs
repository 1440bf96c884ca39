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
        let [mut networks, mut nowhere, mut to_device] = [(); 3].map(|()| BTreeSet::new());
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
                let Some((net, place)) = place_of(&message, device, unspecified) else {
                    continue;
                };
                let those = match place {
                    Place::Device => &mut to_device,
                    Place::Nowhere => &mut nowhere,
                    Place::Elsewhere => &mut networks,
                };
                those.insert(net);
            }
        }
        // What leads nowhere behind a route to the device is for the time when that is gone.
        networks.extend(nowhere.difference(&to_device));
        Ok(networks)
    }
}

/// Where a route leads to.
enum Place {
    Device,
    Nowhere,
    Elsewhere,
}

/// Returns the network of a route of the main or the local table, and where it leads to.
fn place_of(message: &RouteMessage, device: u32, unspecified: IpAddr) -> Option<(IpNet, Place)> {
    let header = &message.header;
    if ![RouteHeader::RT_TABLE_MAIN, RT_TABLE_LOCAL].contains(&header.table) {
        return None;
    }
    let to_device = || {
        let mut attributes = message.attributes.iter();
        attributes.any(|attribute| matches!(attribute, RouteAttribute::Oif(index) if *index == device))
    };
    let place = match header.kind {
        RouteType::Unicast if to_device() => Place::Device,
        RouteType::Unreachable => Place::Nowhere,
        _ => Place::Elsewhere,
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let net = IpNet::new(
        destination.unwrap_or(unspecified),
        header.destination_prefix_length,
    );
    Some((net.ok()?, place))
}
