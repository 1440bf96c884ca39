//! A router between the two hosts of a pair, whose links can be narrow.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use xtask::lab::process::text;
use xtask::lab::{Namespace, Pair, link};

const LIMIT: Duration = Duration::from_secs(10);

/// Interfaces of the router, to the first and to the second host.
const SIDES: [&str; 2] = ["left", "right"];

/// A host that routes between the hosts of a pair and sends no ICMP error about sizes.
pub(crate) struct Detour {
    router: Namespace,
}

impl Detour {
    /// Puts a router in place of the cable between the hosts of a pair that is not started yet.
    ///
    /// Hosts and addresses stay as they were: the router answers for the other host at each side.
    pub(crate) fn lay(pair: &Pair) -> Result<Self> {
        let router = Namespace::unique("router")?;
        pair.a.host.ip(&["link", "del", "u0"])?;
        for (number, (host, side)) in [&pair.a.host, &pair.b.host].into_iter().zip(SIDES).enumerate() {
            let [v4, v6] = outer(number + 1);
            link(
                (host, "u0", &[&format!("{v4}/24"), &format!("{v6}/64")]),
                (&router, side, &[]),
            )?;
        }
        router.enter(|| {
            fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/proxy_ndp", "1")?;
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
            for side in SIDES {
                fs::write(format!("/proc/sys/net/ipv4/conf/{side}/proxy_arp"), "1")?;
                // An answer for another host comes at once.
                fs::write(format!("/proc/sys/net/ipv4/neigh/{side}/proxy_delay"), "0")?;
                fs::write(format!("/proc/sys/net/ipv6/neigh/{side}/proxy_delay"), "0")?;
                fs::write(format!("/proc/sys/net/ipv6/conf/{side}/proxy_ndp"), "1")?;
            }
            Ok(())
        })?;
        for (number, side) in SIDES.into_iter().enumerate() {
            let [v4, v6] = outer(number + 1);
            let [_, other] = outer(2 - number);
            router.ip(&["route", "add", &v4, "dev", side])?;
            router.ip(&["-6", "route", "add", &v6, "dev", side])?;
            router.ip(&["-6", "neigh", "add", "proxy", &other, "dev", side])?;
        }
        let rules = "table inet silent { chain output { type filter hook output priority 0; \
             icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }";
        text(router.command("nft").arg(rules), LIMIT)?;
        Ok(Self { router })
    }

    /// Drops the packets to one of the hosts, 0 or 1, that are larger than this.
    pub(crate) fn drop_large_to(&self, pair: &Pair, host: usize, mtu: u32) -> Result<()> {
        for host in [&pair.a.host, &pair.b.host] {
            // The router has to see the packets that a cable would.
            let off = ["--features", "u0", "tso", "off", "gso", "off"];
            text(host.command("ethtool").args(off), LIMIT)?;
        }
        let rules = format!(
            "table inet narrow {{ chain forward {{ type filter hook forward priority 0; \
             oifname {} meta length > {mtu} drop; }}; }}",
            SIDES[host]
        );
        text(self.router.command("nft").arg(rules), LIMIT)?;
        Ok(())
    }

    /// Drops every packet that is larger than this, in both directions.
    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<()> {
        for side in SIDES {
            self.router.ip(&["link", "set", side, "mtu", &mtu.to_string()])?;
        }
        Ok(())
    }
}

fn outer(number: usize) -> [String; 2] {
    [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
}
