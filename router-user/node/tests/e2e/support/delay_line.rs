//! A cable between the two hosts of a pair on which every frame takes a while, in user space.

use std::time::Duration;

use anyhow::{Context, Result};

use xtask::lab::delay_line::DelayLine;
use xtask::lab::process::text;
use xtask::lab::{Namespace, Pair, link};

const LIMIT: Duration = Duration::from_secs(10);

/// The hosts' interfaces and hardware addresses, and the ends of their cables at the line.
const HOSTS: [(&str, &str, &str); 2] = [
    ("192.0.2.1/24", "02:00:00:00:00:01", "left"),
    ("192.0.2.2/24", "02:00:00:00:00:02", "right"),
];

/// A delay line in place of a cable; it ends on drop.
pub(crate) struct LaidDelayLine {
    _line: DelayLine,
    _middle: Namespace,
}

impl LaidDelayLine {
    /// Puts a line on which a frame takes `delay` in place of the cable between the hosts of a pair, which is not
    /// started yet and has IPv4 addresses.
    pub(crate) fn lay(pair: &Pair, delay: Duration) -> Result<Self> {
        let middle = Namespace::unique("delay")?;
        pair.a.host.ip(&["link", "del", "u0"])?;
        for (host, (address, own, end)) in [&pair.a.host, &pair.b.host].into_iter().zip(HOSTS) {
            link((host, "u0", &[address]), (&middle, end, &[]))?;
            // What a veth leaves to the device would arrive undone.
            let off = ["--features", "u0", "tx", "off", "tso", "off", "gso", "off"];
            text(host.command("ethtool").args(off), LIMIT)?;
            host.ip(&["link", "set", "u0", "address", own])?;
        }
        // Asking for it would take longer than hosts wait for an answer.
        for (host, other) in [(&pair.a.host, HOSTS[1]), (&pair.b.host, HOSTS[0])] {
            let (address, _) = other.0.split_once('/').context("an address with its length")?;
            host.ip(&["neigh", "replace", address, "lladdr", other.1, "dev", "u0"])?;
        }
        Ok(Self {
            _line: DelayLine::start(&middle, [HOSTS[0].2, HOSTS[1].2], delay)?,
            _middle: middle,
        })
    }
}
