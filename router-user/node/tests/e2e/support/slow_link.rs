//! A pair of nodes with a slow link between them, and what loads it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::NODE;
use xtask::lab::probe::Gate;
use xtask::lab::process::output;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Side, Transport, link};

/// What the link is to be, in both directions.
pub(crate) struct LinkPlan {
    /// Rate in kbit/s.
    pub(crate) kbit: u32,
    /// Bytes that wait in the middle before packets are dropped.
    pub(crate) buffer_bytes: u32,
    /// Transport between the nodes.
    pub(crate) transport: Transport,
}

/// Two nodes with a bridge between their hosts, which is slow. The nodes go first.
pub(crate) struct SlowLink {
    /// The nodes.
    pub(crate) pair: Pair,
    _middle: Namespace,
}

impl SlowLink {
    /// Makes it and waits until the nodes are connected.
    pub(crate) fn start(plan: &LinkPlan) -> Result<Self> {
        let nodes = PairPlan {
            transport: plan.transport,
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(Path::new(NODE), &nodes, ScratchDir::unique("link")?)?;
        let middle = Namespace::unique("middle")?;
        pair.a.host.ip(&["link", "del", "u0"])?;
        link((&pair.a.host, "u0", &["192.0.2.1/24"]), (&middle, "to-a", &[]))?;
        link((&pair.b.host, "u0", &["192.0.2.2/24"]), (&middle, "to-b", &[]))?;
        middle.ip(&["link", "add", "br0", "type", "bridge"])?;
        for port in ["to-a", "to-b"] {
            middle.ip(&["link", "set", port, "master", "br0"])?;
            let (rate, limit) = (format!("{}kbit", plan.kbit), plan.buffer_bytes.to_string());
            let mut tc = middle.command("tc");
            tc.args(["qdisc", "add", "dev", port, "root", "tbf"])
                .args(["rate", &rate, "burst", "10k", "limit", &limit]);
            let done = output(&mut tc, Duration::from_secs(10))?;
            ensure!(
                done.status.success(),
                "tc: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        middle.ip(&["link", "set", "br0", "up"])?;
        middle.wait_device_up("br0")?;
        pair.start_nodes()?;
        Ok(Self {
            pair,
            _middle: middle,
        })
    }
}

/// Sends datagrams of 1200 bytes, 3 Mbit/s of them or less, while `during` runs.
pub(crate) fn loaded<T>(directions: &[(&Side, &Side)], during: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = Gate::default();
    let mut sockets = Vec::new();
    for (from, to) in directions {
        let at = SocketAddr::new(to.v4, 7500);
        // It is not read: what comes is dropped there, and nobody is told.
        let sink = to.host.enter(|| Ok(UdpSocket::bind(at)?))?;
        let socket = from.host.enter(|| Ok(UdpSocket::bind((from.v4, 7501))?))?;
        sockets.push((socket, at, sink));
    }
    thread::scope(|scope| {
        for (socket, at, _) in &sockets {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.pause(Duration::from_millis(3)) {
                    // While the node holds back there is no room, which is what is wanted.
                    let _no_room = socket.send_to(&[7; 1200], at);
                }
            });
        }
        let _stop = stop.open_on_drop();
        during()
    })
}
