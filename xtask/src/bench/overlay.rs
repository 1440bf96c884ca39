//! A VXLAN between two hosts, as a cluster lays it over its VPN.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use xtask::lab::Namespace;

const DEVICE: &str = "vxlan0";
const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 43, 0, 2)),
];

/// A VXLAN; its devices go on drop.
#[derive(Debug)]
pub(super) struct Overlay<'a>(&'a [Namespace; 2]);

impl<'a> Overlay<'a> {
    /// Lays one between these addresses of the hosts.
    pub(super) fn over(hosts: &'a [Namespace; 2], addresses: [IpAddr; 2]) -> Result<Self> {
        let overlay = Self(hosts);
        for (side, host) in hosts.iter().enumerate() {
            let [local, remote] = [addresses[side], addresses[1 - side]].map(|address| address.to_string());
            let route = host.ip(&["-oneline", "route", "get", &remote])?;
            let below = device(&route).with_context(|| format!("the route to {remote} has no device"))?;
            let mut add = vec![
                "link", "add", DEVICE, "type", "vxlan", "id", "42", "dstport", "4789",
            ];
            add.extend(["local", &local, "remote", &remote, "dev", below]);
            host.ip(&add)?;
            host.ip(&[
                "address",
                "add",
                &format!("{}/24", ADDRESSES[side]),
                "dev",
                DEVICE,
            ])?;
            host.ip(&["link", "set", DEVICE, "up"])?;
        }
        Ok(overlay)
    }

    /// Returns the address of the second host.
    pub(super) fn to(&self) -> IpAddr {
        ADDRESSES[1]
    }
}

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        for host in self.0 {
            if let Err(error) = host.ip(&["link", "delete", DEVICE]) {
                eprintln!("cannot remove {DEVICE}: {error:#}");
            }
        }
    }
}

fn device(route: &str) -> Option<&str> {
    let (_, rest) = route.split_once(" dev ")?;
    rest.split_whitespace().next()
}
