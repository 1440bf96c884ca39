//! Two cables with a delay between them, in user space, for kernels without netem.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket};

use super::mmsg::{self, BATCH};
use super::namespace::Namespace;

/// Interval at which frames are taken and given.
const TICK: Duration = Duration::from_micros(200);
/// Room for an Ethernet frame of the usual MTU with a VLAN tag.
const FRAME_BYTES: usize = 1522;
/// Most frames that wait in one direction: more than 10 Gbit/s of full frames need.
const MAX_WAITING: usize = 16 * 1024;
/// Socket buffer for the time that this thread does not run: some 10 ms of 10 Gbit/s.
const SOCKET_BYTES: usize = 32 << 20;

/// A running delay line; it ends on drop.
#[derive(Debug)]
pub struct DelayLine {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DelayLine {
    /// Carries frames between two devices of a host, each of which takes `delay`.
    ///
    /// # Errors
    /// When a device is missing, or the system gives no packet socket or thread.
    pub fn start(host: &Namespace, devices: [&str; 2], delay: Duration) -> Result<Self> {
        let [left, right] = host.enter(|| Ok([open(devices[0])?, open(devices[1])?]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("delay-line".into()).spawn(move || {
            // On average a frame is seen half a tick late and given half a tick late.
            let delay = delay.saturating_sub(TICK);
            let [mut there, mut back] = [DelayedDirection::new(delay), DelayedDirection::new(delay)];
            while !stopped.load(Relaxed) {
                there.carry(&left, &right);
                back.carry(&right, &left);
                thread::sleep(TICK);
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
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

/// One direction of the delay line.
struct DelayedDirection {
    delay: Duration,
    waiting: VecDeque<DelayedFrame>,
    free: Vec<Vec<u8>>,
}

struct DelayedFrame {
    due: Instant,
    length: usize,
    bytes: Vec<u8>,
}

impl DelayedDirection {
    fn new(delay: Duration) -> Self {
        Self {
            delay,
            waiting: VecDeque::new(),
            free: Vec::new(),
        }
    }

    fn carry(&mut self, from: &OwnedFd, to: &OwnedFd) {
        while self.waiting.len() < MAX_WAITING && self.take(from) == BATCH {}
        while self.give(to) == BATCH {}
    }

    /// Takes a batch of frames off a device; returns how many there were.
    fn take(&mut self, from: &OwnedFd) -> usize {
        let due = Instant::now() + self.delay;
        self.free
            .resize_with(self.free.len().max(BATCH), || vec![0; FRAME_BYTES]);
        let first = self.free.len() - BATCH;
        let mut batch = self.free.split_off(first);
        let mut buffers: Vec<IoSliceMut<'_>> = batch.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        let Ok(lengths) = mmsg::receive(from.as_fd(), &mut buffers, false) else {
            self.free.append(&mut batch);
            return 0;
        };
        let mut batch = batch.into_iter();
        let mut n_taken = 0;
        for (length, bytes) in lengths.zip(batch.by_ref()) {
            self.waiting.push_back(DelayedFrame { due, length, bytes });
            n_taken += 1;
        }
        self.free.extend(batch);
        n_taken
    }

    /// Gives a batch of frames that are due to a device; returns how many. What a device refuses is lost, as on a
    /// cable.
    fn give(&mut self, to: &OwnedFd) -> usize {
        let now = Instant::now();
        let due = self.waiting.iter().take(BATCH);
        let packets: Vec<IoSlice<'_>> = due
            .take_while(|frame| frame.due <= now)
            .map(|frame| IoSlice::new(&frame.bytes[..frame.length]))
            .collect();
        let mut rest = &packets[..];
        while !rest.is_empty() {
            let n_gone = mmsg::send(to.as_fd(), rest).unwrap_or(1);
            rest = rest.get(n_gone..).unwrap_or_default();
        }
        let n_given = packets.len();
        let given = self.waiting.drain(..n_given);
        self.free.extend(given.map(|frame| frame.bytes));
        n_given
    }
}

/// Returns a socket for all frames that a device brings; what is sent through it does not come back to it.
fn open(device: &str) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    setsockopt(&socket, RcvBufForce, &SOCKET_BYTES)?;
    setsockopt(&socket, SndBufForce, &SOCKET_BYTES)?;
    bind(socket.as_raw_fd(), &link_address(device)?)
        .with_context(|| format!("cannot bind a packet socket to {device}"))?;
    Ok(socket)
}

fn link_address(device: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|interface| interface.interface_name == device)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .with_context(|| format!("no device {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::link;
    use crate::lab::probe::PingPlan;

    #[test]
    fn a_round_trip_takes_twenty_milliseconds() {
        let hosts = ["a", "middle", "b"].map(|label| Namespace::unique(label).unwrap());
        let [a, middle, b] = &hosts;
        link((a, "u0", &["192.0.2.1/24"]), (middle, "left", &[])).unwrap();
        link((b, "u0", &["192.0.2.2/24"]), (middle, "right", &[])).unwrap();
        let line = DelayLine::start(middle, ["left", "right"], Duration::from_millis(10)).unwrap();
        let pings = PingPlan {
            count: 20,
            ..PingPlan::new([192, 0, 2, 2].into())
        };

        let report = pings.run(a).unwrap();
        drop(line);

        assert_eq!(report.n_lost(), 0);
        let median = report.percentile_ms(50).unwrap();
        assert!((19.0..25.0).contains(&median), "{median}");
    }
}
