//! What the kernel has of one interface: the link, its addresses, and what is done at its egress.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    LinkXdp,
};

use super::netlink::{Netlink, NetlinkError, refused};

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Index of the interface.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge, bond or VRF that it belongs to.
    pub controller: Option<u32>,
    /// Whether it is a TUN or TAP device.
    pub is_tun: bool,
    /// Whether it gives itself IPv6 addresses; `None` if it has no IPv6.
    pub ipv6_autoconfiguration: Option<bool>,
    /// Ids of the XDP programs on it.
    pub xdp: Vec<u32>,
    /// Hardware address, if it is an Ethernet interface.
    pub ethernet_address: Option<[u8; 6]>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The address with the length of its on-link prefix.
    pub net: IpNet,
    /// Another IPv4 address of the same network stands before it.
    pub secondary: bool,
    /// It can be used, and will be for ever.
    pub usable: bool,
}

impl From<&LinkMessage> for LinkState {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            controller: None,
            is_tun: false,
            ipv6_autoconfiguration: None,
            xdp: Vec::new(),
            ethernet_address: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = (*index != 0).then_some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_tun = infos
                        .iter()
                        .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Tun)));
                }
                LinkAttribute::AfSpecUnspec(families) => {
                    link.ipv6_autoconfiguration = families.iter().find_map(autoconfiguration);
                }
                LinkAttribute::Xdp(xdp) => {
                    link.xdp = xdp.iter().filter_map(program).collect();
                    link.xdp.sort_unstable();
                    link.xdp.dedup();
                }
                _ => {}
            }
        }
        link.ethernet_address = super::netlink::Interface::from(message.clone()).ethernet_address;
        link
    }
}

fn autoconfiguration(family: &AfSpecUnspec) -> Option<bool> {
    let AfSpecUnspec::Inet6(settings) = family else {
        return None;
    };
    settings.iter().find_map(|setting| match setting {
        AfSpecInet6::AddrGenMode(mode) => Some(*mode != In6AddrGenMode::None),
        _ => None,
    })
}

fn program(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    }
}

impl AddressState {
    fn of(message: &AddressMessage) -> Option<Self> {
        let (mut own, mut any, mut flags) = (None, None, AddressFlags::empty());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => own = Some(*ip),
                // IPv6 addresses without a remote end come as IFA_ADDRESS alone.
                AddressAttribute::Address(ip) => any = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let unusable = AddressFlags::Dadfailed | AddressFlags::Deprecated;
        Some(Self {
            net: IpNet::new(own.or(any)?, message.header.prefix_len).ok()?,
            secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
            usable: flags.contains(AddressFlags::Permanent) && !flags.intersects(unusable),
        })
    }
}

impl Netlink {
    /// Returns what the kernel has of the interface with `index`, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn link_state(&self, index: u32) -> Result<Option<LinkState>, NetlinkError> {
        let links = self.handle.link().get().match_index(index).execute();
        let mut links = std::pin::pin!(links);
        let action = || format!("look up the interface with index {index}");
        one(links.try_next().await, action)
    }

    /// Returns what the kernel has of the interface called `name`, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn link_state_by_name(&self, name: &str) -> Result<Option<LinkState>, NetlinkError> {
        let links = self.handle.link().get().match_name(name).execute();
        let mut links = std::pin::pin!(links);
        one(links.try_next().await, || format!("look up the interface {name}"))
    }

    /// Returns the names of the TUN and TAP devices.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn tun_devices(&self) -> Result<Vec<String>, NetlinkError> {
        let messages: Result<Vec<_>, _> = self.handle.link().get().execute().try_collect().await;
        let messages = messages.map_err(|error| refused("list interfaces".to_owned(), error))?;
        let links = messages.iter().map(LinkState::from);
        Ok(links.filter(|link| link.is_tun).map(|link| link.name).collect())
    }

    /// Returns the addresses of an interface, in the kernel's order.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn address_states(&self, index: u32) -> Result<Vec<AddressState>, NetlinkError> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Result<Vec<_>, _> = request.execute().try_collect().await;
        let messages = messages.map_err(|error| refused("list addresses".to_owned(), error))?;
        let of_the_interface = messages.iter().filter(|message| message.header.index == index);
        Ok(of_the_interface.filter_map(AddressState::of).collect())
    }

    /// Takes an address from an interface; one that is gone already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = match address.addr() {
            IpAddr::V4(_) => rtnetlink::packet_route::AddressFamily::Inet,
            IpAddr::V6(_) => rtnetlink::packet_route::AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(address.addr()));
        let Err(error) = self.handle.address().del(message).execute().await else {
            return Ok(());
        };
        let error = refused(format!("remove the address {address}"), error);
        match error.errno() {
            Some(Errno::EADDRNOTAVAIL) => Ok(()),
            _ => Err(error),
        }
    }

    /// Gives an interface another name. Before Linux 6.2 it has to be down for that, and is taken down and up.
    ///
    /// # Errors
    /// The kernel refuses, or the name is taken.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let named = || LinkUnspec::new_with_index(index).name(name.to_owned()).build();
        let action = || format!("give the device its name {name} back");
        match self.set_link(named(), action).await {
            Err(error) if error.errno() == Some(Errno::EBUSY) => {
                let down = LinkUnspec::new_with_index(index).down().build();
                self.set_link(down, action).await?;
                let renamed = self.set_link(named(), action).await;
                self.set_up(index).await?;
                renamed
            }
            done => done,
        }
    }

    /// Takes an interface out of the bridge, bond or VRF that it belongs to.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn release(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).nocontroller().build();
        self.set_link(message, || "take the device out of its bridge or VRF".to_owned())
            .await
    }
}

fn one(
    found: Result<Option<LinkMessage>, rtnetlink::Error>,
    action: impl FnOnce() -> String,
) -> Result<Option<LinkState>, NetlinkError> {
    match found.map_err(|error| refused(action(), error)) {
        Ok(message) => Ok(message.as_ref().map(LinkState::from)),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}
