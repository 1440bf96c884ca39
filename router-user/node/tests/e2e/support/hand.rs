//! Somebody who changes the host of a node, in every way that there is a line of here.

use std::fs;

use anyhow::{Context, Result, bail};

use super::host_view::LIMIT;
use crate::host::Status;
use xtask::lab::Side;
use xtask::lab::process::{text, until};

/// A change of the host. [`Hand::change`] makes it, and takes back what is not the node's to put right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    /// What the node's log says of it; `None` for what is none of the node's business.
    pub(crate) said: Option<&'static str>,
}

/// All changes that leave the host as it was, once the node has put back what is its own.
pub(crate) const CHANGES: [Change; 25] = [
    node_s("link down", "the state of the device is down"),
    // It may be up again before the node looks.
    other("link down and up"),
    node_s("MTU 1000", "the MTU of the device is 1000"),
    node_s("MTU 9000", "the MTU of the device is 9000"),
    node_s("rename", "the name of the device is other0"),
    node_s("remove the IPv4 address", "the address 10.42.0.1/24 is missing"),
    node_s("flush the IPv6 addresses", "the address fd42::1/64 is missing"),
    node_s(
        "limit the lifetime of an address",
        "the address 10.42.0.1/24 cannot be used",
    ),
    node_s(
        "remove the host's own route",
        "the host's own route of 10.42.0.1 is missing",
    ),
    node_s(
        "remove the route to the peer",
        "the route 10.42.0.2/32 is missing",
    ),
    node_s("flush the IPv4 routes", "the route 10.42.0.2/32 is missing"),
    node_s("flush the IPv6 routes", "the route fd42::2/128 is missing"),
    node_s("turn IPv6 of the device off", "IPv6 of the device is off"),
    other("turn IPv6 of all devices off and on"),
    node_s("remove the qdisc", "the filter at the device's egress is missing"),
    node_s(
        "remove the filter",
        "the filter at the device's egress is missing",
    ),
    node_s(
        "put a filter before ours",
        "the filter at the device's egress comes too late",
    ),
    node_s(
        "put a filter in the place of ours",
        "the filter at the device's egress is missing",
    ),
    other("another root qdisc"),
    other("a policy rule of somebody else's"),
    other("a firewall comes and goes"),
    other("strict rp_filter comes and goes"),
    other("an interface and a namespace come and go"),
    other("the default route comes and goes"),
    node_s("remove the pins", "what is pinned is incomplete"),
];

const fn node_s(name: &'static str, said: &'static str) -> Change {
    Change {
        name,
        said: Some(said),
    }
}

const fn other(name: &'static str) -> Change {
    Change { name, said: None }
}

/// A program that drops every packet.
const DROP: [&str; 4] = ["bpf", "bytecode", "1,6 0 0 2", "da"];

/// Somebody who changes the host of a node.
pub(crate) struct Hand<'a> {
    pub(crate) side: &'a Side,
    device: &'a str,
    pins: String,
}

impl<'a> Hand<'a> {
    /// Makes one for the host of a running node.
    ///
    /// # Errors
    /// The node does not answer, or has no pins.
    pub(crate) fn of(side: &'a Side) -> Result<Self> {
        Ok(Self {
            side,
            device: &side.config.device,
            pins: side.node.status()?.pins.context("no pins")?,
        })
    }

    /// Makes a change.
    ///
    /// # Errors
    /// A tool refuses, or the node does not put right in time what is waited for.
    pub(crate) fn change(&self, change: &str) -> Result<()> {
        let device = self.device;
        let host = &self.side.host;
        let ip = |args: &str| host.ip(&args.split(' ').collect::<Vec<_>>()).map(drop);
        let set = |name: &str, value: &str| {
            let path = format!("/proc/sys/net/{name}");
            host.enter(|| Ok(fs::write(&path, value)?))
        };
        match change {
            "link down" => ip(&format!("link set {device} down")),
            "link down and up" => {
                ip(&format!("link set {device} down"))?;
                ip(&format!("link set {device} up"))
            }
            "MTU 1000" => ip(&format!("link set {device} mtu 1000")),
            "MTU 9000" => ip(&format!("link set {device} mtu 9000")),
            "rename" => ip(&format!("link set {device} name other0")),
            "remove the IPv4 address" => ip(&format!("address del 10.42.0.1/24 dev {device}")),
            "flush the IPv6 addresses" => ip(&format!("-6 address flush dev {device}")),
            "limit the lifetime of an address" => ip(&format!(
                "address change 10.42.0.1/24 dev {device} valid_lft 60 preferred_lft 0"
            )),
            "remove the host's own route" => {
                ip(&format!("route del table local local 10.42.0.1 dev {device}"))
            }
            "remove the route to the peer" => ip(&format!("route del 10.42.0.2/32 dev {device}")),
            "flush the IPv4 routes" => ip(&format!("route flush dev {device}")),
            "flush the IPv6 routes" => ip(&format!("-6 route flush dev {device}")),
            "turn IPv6 of the device off" => set(&format!("ipv6/conf/{device}/disable_ipv6"), "1"),
            "turn IPv6 of all devices off and on" => {
                set(&format!("ipv6/conf/{device}/disable_ipv6"), "1")?;
                set(&format!("ipv6/conf/{device}/disable_ipv6"), "0")
            }
            "remove the qdisc" => self.tc(&["qdisc", "del", "dev", device, "clsact"]),
            "remove the filter" => self.tc(&["filter", "del", "dev", device, "egress"]),
            "put a filter before ours" => {
                let place = [
                    "filter", "add", "dev", device, "egress", "protocol", "all", "pref", "1",
                ];
                self.tc(&[&place[..], &DROP].concat())?;
                self.remove_other_filter()
            }
            "put a filter in the place of ours" => {
                let filters = self.filters()?;
                let handle = handle(filters.first().context("no filter")?)?;
                let place = [
                    "filter", "replace", "dev", device, "egress", "protocol", "all", "pref", "1", "handle",
                    handle,
                ];
                self.tc(&[&place[..], &DROP].concat())?;
                self.remove_other_filter()
            }
            "another root qdisc" => self.tc(&["qdisc", "replace", "dev", device, "root", "pfifo"]),
            "a policy rule of somebody else's" => {
                ip("rule add pref 150 to 203.0.113.0/24 table 150")?;
                ip("rule del pref 150")
            }
            "a firewall comes and goes" => {
                let table = "table inet other { chain out { type filter hook output priority 0; \
                             oifname \"sr*\" drop; }; }";
                self.run("nft", &[table])?;
                self.run("nft", &["delete table inet other"])
            }
            "strict rp_filter comes and goes" => {
                set(&format!("ipv4/conf/{device}/rp_filter"), "1")?;
                set(&format!("ipv4/conf/{device}/rp_filter"), "0")
            }
            "an interface and a namespace come and go" => {
                ip("link add dummy7 type veth peer name dummy8")?;
                ip("address add 203.0.113.7/24 dev dummy7")?;
                ip("link set dummy7 up")?;
                ip("link del dummy7")
            }
            "the default route comes and goes" => {
                let routes = host.ip(&["route", "show", "default"])?;
                let Some(route) = routes.lines().next().map(str::trim) else {
                    return Ok(());
                };
                ip(&format!("route del {route}"))?;
                ip(&format!("route add {route}"))
            }
            "remove the pins" => Ok(fs::remove_dir_all(&self.pins)?),
            other => bail!("nobody knows how to {other}"),
        }
    }

    /// Waits until the node's filter is before the other one, or the node gives in, and then removes the other one: it has
    /// to be there still.
    fn remove_other_filter(&self) -> Result<()> {
        let is_own = |line: &String| line.contains("sr_egress");
        until("the node's filter is first", LIMIT, || {
            let is_first = self.filters()?.first().is_some_and(is_own);
            Ok((is_first || !Status::of(self.side)?.conflicts().is_empty()).then_some(()))
        })?;
        let filters = self.filters()?;
        let other = filters
            .iter()
            .find(|line| !is_own(line))
            .context("the other filter is gone")?;
        self.tc(&[
            "filter",
            "del",
            "dev",
            self.device,
            "egress",
            "protocol",
            "all",
            "pref",
            "1",
            "handle",
            handle(other)?,
            "bpf",
        ])
    }

    /// The filters at the egress of the device, a line each.
    fn filters(&self) -> Result<Vec<String>> {
        let mut show = self.side.host.command("tc");
        let shown = text(show.args(["filter", "show", "dev", self.device, "egress"]), LIMIT)?;
        let filters = shown.lines().filter(|line| line.contains("handle"));
        Ok(filters.map(str::to_owned).collect())
    }

    fn tc(&self, args: &[&str]) -> Result<()> {
        self.run("tc", args)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        text(self.side.host.command(program).args(args), LIMIT).map(drop)
    }
}

/// Returns what tells a filter from others of its priority.
fn handle(filter: &str) -> Result<&str> {
    let (_, rest) = filter.split_once("handle ").context("no handle")?;
    Ok(rest.split(' ').next().unwrap_or_default())
}
