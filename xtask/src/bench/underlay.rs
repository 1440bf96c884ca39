//! The link below the tunnels.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xtask::lab::process::text;
use xtask::lab::{Namespace, link};

use super::figure::Link;

/// Outer addresses of the two hosts.
pub(super) const OUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
];

const DEVICE: &str = "u0";
const LIMIT: Duration = Duration::from_secs(10);

/// Two hosts and what connects them.
#[derive(Debug)]
pub(super) struct Underlay {
    /// The hosts: a sends, b receives, unless a measurement says otherwise.
    pub(super) hosts: [Namespace; 2],
}

impl Underlay {
    /// Lays a cable of this kind.
    pub(super) fn new(kind: Link) -> Result<Self> {
        let hosts = [Namespace::unique("a")?, Namespace::unique("b")?];
        let [a, b] = &hosts;
        link((a, DEVICE, &[&prefix(0)]), (b, DEVICE, &[&prefix(1)]))?;
        if kind == Link::Frames {
            for host in &hosts {
                carry_frames_only(host, DEVICE)?;
            }
        }
        Ok(Self { hosts })
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

/// Takes away what lets a segment larger than the MTU cross the device.
fn carry_frames_only(host: &Namespace, device: &str) -> Result<()> {
    let mut command: Command = host.command("ethtool");
    command.args(["--features", device]);
    for feature in ["tso", "gso", "gro", "tx-udp-segmentation"] {
        command.args([feature, "off"]);
    }
    text(&mut command, LIMIT)?;
    Ok(())
}
