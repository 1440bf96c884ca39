//! The link below the tunnels.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;

use super::figure::LinkKind;
use xtask::lab::delay_line::DelayLine;
use xtask::lab::process::text;
use xtask::lab::{Namespace, link};

/// Outer addresses of the two hosts.
pub(super) const OUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
];

const DEVICE: &str = "u0";
/// Time that a frame takes one way where the link is [far](LinkKind::Far).
const DELAY: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(10);

/// Two hosts and the link between them.
#[derive(Debug)]
pub(super) struct HostPair {
    /// The hosts: a sends, b receives, unless a measurement says otherwise.
    pub(super) hosts: [Namespace; 2],
    _middle: Option<(DelayLine, Namespace)>,
}

impl HostPair {
    /// Lays a cable of this kind.
    pub(super) fn new(kind: LinkKind) -> Result<Self> {
        let hosts = [Namespace::unique("a")?, Namespace::unique("b")?];
        let [a, b] = &hosts;
        let middle = if kind == LinkKind::Far {
            Some(lay_delayed(a, b)?)
        } else {
            link((a, DEVICE, &[&prefix(0)]), (b, DEVICE, &[&prefix(1)]))?;
            None
        };
        if kind != LinkKind::Offloads {
            for host in &hosts {
                switch_off(host, &["tso", "gso", "gro", "tx-udp-segmentation"])?;
            }
        }
        Ok(Self {
            hosts,
            _middle: middle,
        })
    }

    /// Drops this share of the packets that reach the second host, at random, instead of the share before.
    pub(super) fn lose(&self, per_mille: u32) -> Result<()> {
        let rules = format!(
            "table inet loss; delete table inet loss; table inet loss {{ chain arriving {{ \
             type filter hook prerouting priority raw; \
             iifname {DEVICE} numgen random mod 1000 < {per_mille} drop; }}; }}"
        );
        let [_, b] = &self.hosts;
        text(b.command("nft").arg(rules), LIMIT)?;
        Ok(())
    }
}

fn prefix(side: usize) -> String {
    format!("{}/24", OUTER[side])
}

/// Lays two cables with a delay line between them.
fn lay_delayed(a: &Namespace, b: &Namespace) -> Result<(DelayLine, Namespace)> {
    let middle = Namespace::unique("middle")?;
    let devices = ["left", "right"];
    for (side, (host, device)) in [a, b].into_iter().zip(devices).enumerate() {
        link((host, DEVICE, &[&prefix(side)]), (&middle, device, &[]))?;
        // Between two veths a checksum is left to the device, and the delay line would carry a wrong one.
        switch_off(host, &["tx"])?;
    }
    Ok((DelayLine::start(&middle, devices, DELAY)?, middle))
}

fn switch_off(host: &Namespace, features: &[&str]) -> Result<()> {
    let mut command = host.command("ethtool");
    command.args(["--features", DEVICE]);
    for feature in features {
        command.args([feature, "off"]);
    }
    text(&mut command, LIMIT)?;
    Ok(())
}
