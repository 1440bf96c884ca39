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

/// Another address for the first host.
pub(super) const OTHER_OUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));

const DEVICE: &str = "u0";
/// Time that a frame takes one way where the link is [far](LinkKind::Far).
const DELAY: Duration = Duration::from_millis(10);
/// What a slow link sends at once: of its rate, and the least, which is some frames.
const BURSTS_PER_SECOND: u32 = 125;
const MIN_BURST_BYTES: u32 = 5000;
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
        if kind == LinkKind::Far {
            return Self::far(DELAY);
        }
        let hosts = [Namespace::unique("a")?, Namespace::unique("b")?];
        let [a, b] = &hosts;
        link((a, DEVICE, &[&prefix(0)]), (b, DEVICE, &[&prefix(1)]))?;
        if kind != LinkKind::Offloads {
            frames_only(&hosts)?;
        }
        if let Some(bytes_per_second) = kind.bytes_per_second() {
            for host in &hosts {
                slow_down(host, bytes_per_second)?;
            }
        }
        Ok(Self { hosts, _middle: None })
    }

    /// Lays two cables without offloads, and between them what delays each frame by so much.
    pub(super) fn far(delay: Duration) -> Result<Self> {
        let hosts = [Namespace::unique("a")?, Namespace::unique("b")?];
        let [a, b] = &hosts;
        let middle = Some(lay_delayed(a, b, delay)?);
        frames_only(&hosts)?;
        Ok(Self {
            hosts,
            _middle: middle,
        })
    }

    /// Gives the first host another address in place of the one that it has.
    pub(super) fn readdress(&self, from: IpAddr, to: IpAddr) -> Result<()> {
        let [a, _] = &self.hosts;
        a.ip(&["address", "delete", &format!("{from}/24"), "dev", DEVICE])?;
        a.ip(&["address", "add", &format!("{to}/24"), "dev", DEVICE])?;
        Ok(())
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
fn lay_delayed(a: &Namespace, b: &Namespace, delay: Duration) -> Result<(DelayLine, Namespace)> {
    let middle = Namespace::unique("middle")?;
    let devices = ["left", "right"];
    for (side, (host, device)) in [a, b].into_iter().zip(devices).enumerate() {
        link((host, DEVICE, &[&prefix(side)]), (&middle, device, &[]))?;
        // Between two veths a checksum is left to the device, and the delay line would carry a wrong one.
        switch_off(host, &["tx"])?;
    }
    Ok((DelayLine::start(&middle, devices, delay)?, middle))
}

/// Has segments cross the cable as frames of its MTU.
fn frames_only(hosts: &[Namespace; 2]) -> Result<()> {
    for host in hosts {
        switch_off(host, &["tso", "gso", "gro", "tx-udp-segmentation"])?;
    }
    Ok(())
}

fn slow_down(host: &Namespace, bytes_per_second: u32) -> Result<()> {
    let burst = (bytes_per_second / BURSTS_PER_SECOND).max(MIN_BURST_BYTES);
    let mut command = host.command("tc");
    command.args(["qdisc", "add", "dev", DEVICE, "root", "tbf"]);
    command.args(["rate", &format!("{bytes_per_second}bps")]);
    command.args([
        "burst",
        &burst.to_string(),
        "limit",
        &bytes_per_second.to_string(),
    ]);
    text(&mut command, LIMIT)?;
    Ok(())
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
