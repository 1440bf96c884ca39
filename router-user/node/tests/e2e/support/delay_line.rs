//! A cable between the two hosts of a pair on which every frame takes a while, in user space.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use xtask::lab::process::text;
use xtask::lab::{Namespace, Pair, link};

const LIMIT: Duration = Duration::from_secs(10);

/// Interval at which frames are taken and given.
const TICK: Duration = Duration::from_millis(1);

/// Room for an Ethernet frame of the usual MTU.
const FRAME_BYTES: usize = 1522;

/// Most frames that wait in one direction; what is more is lost.
const MAX_WAITING: usize = 16 * 1024;

/// The hosts' interfaces and hardware addresses, and the ends of their cables at the line.
const HOSTS: [(&str, &str, &str); 2] = [
    ("192.0.2.1/24", "02:00:00:00:00:01", "left"),
    ("192.0.2.2/24", "02:00:00:00:00:02", "right"),
];

/// A running delay line; it ends on drop.
pub(crate) struct DelayLine {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _middle: Namespace,
}

impl DelayLine {
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
        let [left, right] = middle.enter(|| Ok([open(HOSTS[0].2)?, open(HOSTS[1].2)?]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
            while !stopped.load(Relaxed) {
                carry(&mut there, &left, &right, delay);
                carry(&mut back, &right, &left, delay);
                thread::sleep(TICK);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
            _middle: middle,
        })
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the delay line panicked");
        }
    }
}

/// Takes the frames that one device brings, and gives those that are due to the other.
fn carry(waiting: &mut VecDeque<(Instant, Vec<u8>)>, from: &OwnedFd, to: &OwnedFd, delay: Duration) {
    let now = Instant::now();
    let mut frame = [0; FRAME_BYTES];
    while let Ok(len) = recv(from.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
        if waiting.len() < MAX_WAITING {
            waiting.push_back((now + delay, frame[..len].to_vec()));
        }
    }
    while let Some((_, frame)) = waiting.pop_front_if(|(due, _)| *due <= now) {
        // What the device refuses is lost, as on a cable.
        let _refused = send(to.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT);
    }
}

/// Opens a socket for all frames that a device brings; what is sent through it does not come back to it.
fn open(device: &str) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    let address: LinkAddr = getifaddrs()?
        .filter(|interface| interface.interface_name == device)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .with_context(|| format!("no device {device}"))?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot bind a packet socket to {device}"))?;
    Ok(socket)
}
