//! What can differ between what the node wants and what the kernel has.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::device::{Route, Rule, Sysctl};

/// One thing of the host that the node wants to be so. Its text names it to an operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::node) enum Thing {
    /// The name of the device.
    Name,
    /// The device belongs to no bridge, bond or VRF.
    Controller,
    /// The device is up.
    Up,
    /// The MTU of the device.
    Mtu,
    /// The device has IPv6.
    Ipv6,
    /// The device gives itself no IPv6 address.
    Autoconfiguration,
    /// An address of the device.
    Address(IpNet),
    /// The host takes packets for an address of the device.
    Local(IpAddr),
    /// A route.
    Route(Route),
    /// A policy rule.
    Rule(Rule),
    /// The filter at the egress of the device, before all others.
    Hook,
    /// Nothing of others takes what peers send before the host does.
    Ingress,
    /// The node's own table of nftables.
    Nft,
    /// A setting of the kernel that is on.
    Setting(Sysctl),
    /// Packets to a network of a peer, or to one inside it, go to the device.
    Way(IpNet),
    /// The program at a gateway's interface, by its name.
    Gateway(String),
    /// The pins of programs and maps.
    Pins,
}

/// What a thing rests on: the kernel takes it away with what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Level {
    Device,
    Family,
    Address,
    Route,
    /// Rests on nothing of these.
    Alone,
}

impl Thing {
    /// Returns what the thing rests on.
    pub(in crate::node) fn level(&self) -> Level {
        match self {
            Self::Name | Self::Controller | Self::Up | Self::Mtu => Level::Device,
            Self::Ipv6 | Self::Autoconfiguration => Level::Family,
            Self::Address(_) => Level::Address,
            Self::Local(_) | Self::Route(_) => Level::Route,
            Self::Rule(_)
            | Self::Hook
            | Self::Ingress
            | Self::Gateway(_)
            | Self::Pins
            | Self::Nft
            | Self::Setting(_)
            | Self::Way(_) => Level::Alone,
        }
    }

    /// Returns the name of the kind, which does not change between versions.
    pub(in crate::node) fn kind(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Controller => "controller",
            Self::Up => "up",
            Self::Mtu => "mtu",
            Self::Ipv6 => "ipv6",
            Self::Autoconfiguration => "autoconfiguration",
            Self::Address(_) => "address",
            Self::Local(_) => "local",
            Self::Route(_) => "route",
            Self::Rule(_) => "rule",
            Self::Hook => "hook",
            Self::Ingress => "ingress",
            Self::Nft => "nftables",
            Self::Setting(_) => "setting",
            Self::Way(_) => "way",
            Self::Gateway(_) => "gateway",
            Self::Pins => "pins",
        }
    }

    /// Returns which of its kind it is; empty if there is one only.
    pub(in crate::node) fn which(&self) -> String {
        match self {
            Self::Address(net) => net.to_string(),
            Self::Local(ip) => ip.to_string(),
            Self::Route(route) => route.to_string(),
            Self::Rule(rule) => rule.to_string(),
            Self::Gateway(interface) => interface.clone(),
            Self::Setting(setting) => setting.to_string(),
            Self::Way(net) => net.to_string(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the name of the device"),
            Self::Controller => f.write_str("the device's independence"),
            Self::Up => f.write_str("the state of the device"),
            Self::Mtu => f.write_str("the MTU of the device"),
            Self::Ipv6 => f.write_str("IPv6 of the device"),
            Self::Autoconfiguration => f.write_str("IPv6 autoconfiguration of the device"),
            Self::Address(net) => write!(f, "the address {net}"),
            Self::Local(ip) => write!(f, "the host's own route of {ip}"),
            Self::Route(route) => write!(f, "the route {route}"),
            Self::Rule(rule) => write!(f, "the {rule}"),
            Self::Hook => f.write_str("the filter at the device's egress"),
            Self::Ingress => f.write_str("the device's ingress"),
            Self::Nft => f.write_str("the node's table of nftables"),
            Self::Setting(setting) => write!(f, "the setting {setting}"),
            Self::Way(net) => write!(f, "the way to {net}"),
            Self::Pins => f.write_str("what is pinned"),
            Self::Gateway(interface) => write!(f, "the gateway {interface}"),
        }
    }
}
