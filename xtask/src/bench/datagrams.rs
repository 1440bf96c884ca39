//! UDP packets at a chosen rate, small ones too: iperf3 cannot send enough of them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use xtask::lab::Namespace;

use super::mmsg::{self, BATCH};

/// The search for the best rate begins here, far below what any of them carries.
const FIRST_RATE_PPS: f64 = 10_000.0;
const RATE_STEP: f64 = 1.5;
/// The search ends when less than this share of what was to be sent is received.
const SATURATED: f64 = 0.5;
const MAX_STEPS: usize = 16;
/// Part of a measurement's time that a step of the search takes.
const STEP_SHARE: u32 = 5;
/// A sender that was not run for longer than this does not make up for it.
const MAX_BEHIND: Duration = Duration::from_millis(5);
/// How long packets may be on their way.
const GRACE: Duration = Duration::from_millis(200);
/// Some 10 ms of a million packets, so that the receiver's sleep is not what is measured.
const SOCKET_BYTES: usize = 16 << 20;
const BUFFER_BYTES: usize = 2048;

/// What came of packets offered at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offered {
    /// Packets sent in a second.
    pub(super) sent_pps: f64,
    /// Packets received in a second.
    pub(super) received_pps: f64,
}

impl Offered {
    /// Percent of the packets that were not received.
    pub(super) fn loss_percent(&self) -> f64 {
        100.0 * (1.0 - self.received_pps / self.sent_pps).max(0.0)
    }
}

/// Packets of a size from one host to another.
#[derive(Debug)]
pub(super) struct Datagrams<'a> {
    pub(super) hosts: &'a [Namespace; 2],
    pub(super) to: IpAddr,
    pub(super) payload_bytes: usize,
    pub(super) duration: Duration,
}

impl Datagrams<'_> {
    /// Offers more and more until most is lost; returns what the best rate gave.
    pub(super) fn best(&self) -> Result<Offered> {
        let step = self.duration / STEP_SHARE;
        let rate = search(|rate_pps| self.offer_for(rate_pps, step))?;
        self.offer(rate)
    }

    /// Offers packets at a rate.
    pub(super) fn offer(&self, rate_pps: f64) -> Result<Offered> {
        self.offer_for(rate_pps, self.duration)
    }

    fn offer_for(&self, rate_pps: f64, duration: Duration) -> Result<Offered> {
        let [from, at] = self.hosts;
        let receiver = at.enter(|| {
            let socket = UdpSocket::bind((self.to, 0)).context("cannot receive UDP")?;
            setsockopt(&socket, RcvBufForce, &SOCKET_BYTES)?;
            socket.set_read_timeout(Some(GRACE / 10))?;
            Ok(socket)
        })?;
        let to = receiver.local_addr()?;
        let stop = AtomicBool::new(false);
        let (n_received, sent) = thread::scope(|scope| {
            let receiving = scope.spawn(|| receive(&receiver, &stop));
            let sent = from.enter(|| send(to, self.payload_bytes, rate_pps, duration));
            thread::sleep(GRACE);
            stop.store(true, Relaxed);
            (receiving.join().expect("the receiver does not panic"), sent)
        });
        let (n_sent, seconds) = sent?;
        ensure!(n_sent > 0, "no packet was sent");
        Ok(Offered {
            sent_pps: n_sent as f64 / seconds,
            received_pps: n_received as f64 / seconds,
        })
    }
}

/// The rate whose received rate is the best.
fn search(mut offer: impl FnMut(f64) -> Result<Offered>) -> Result<f64> {
    let mut rate = FIRST_RATE_PPS;
    let (mut best_rate, mut best_received) = (rate, 0.0);
    for _ in 0..MAX_STEPS {
        let offered = offer(rate)?;
        if offered.received_pps > best_received {
            (best_rate, best_received) = (rate, offered.received_pps);
        }
        if offered.received_pps < SATURATED * rate {
            break;
        }
        rate *= RATE_STEP;
    }
    Ok(best_rate)
}

/// Sends at a rate; returns how many packets went out in how many seconds.
fn send(to: SocketAddr, payload_bytes: usize, rate_pps: f64, duration: Duration) -> Result<(u64, f64)> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot send UDP")?;
    socket.connect(to).context("cannot send UDP")?;
    let payload = vec![0; payload_bytes];
    let packets = [IoSlice::new(&payload); BATCH];
    let max_behind = (rate_pps * MAX_BEHIND.as_secs_f64()).max(BATCH as f64) as u64;
    let pause = Duration::from_secs_f64(BATCH as f64 / rate_pps / 2.0);
    let (mut n_done, mut n_sent) = (0, 0);
    let started = Instant::now();
    loop {
        let elapsed = started.elapsed();
        if elapsed >= duration {
            return Ok((n_sent, elapsed.as_secs_f64()));
        }
        let n_due = (elapsed.as_secs_f64() * rate_pps) as u64;
        n_done = n_done.max(n_due.saturating_sub(max_behind));
        let n_packets = n_due.saturating_sub(n_done).min(BATCH as u64);
        if n_packets == 0 {
            thread::sleep(pause);
            continue;
        }
        // A packet that the own host refuses was offered, too.
        let n_gone = mmsg::send(socket.as_fd(), &packets[..n_packets as usize]).unwrap_or(1) as u64;
        n_done += n_gone;
        n_sent += n_gone;
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut bytes = vec![[0; BUFFER_BYTES]; BATCH];
    let mut buffers: Vec<IoSliceMut<'_>> = bytes.iter_mut().map(|one| IoSliceMut::new(one)).collect();
    let mut n_received = 0;
    while !stop.load(Relaxed) {
        // An error is a receive time-out.
        if let Ok(lengths) = mmsg::receive(socket.as_fd(), &mut buffers, true) {
            n_received += lengths.count() as u64;
        }
    }
    n_received
}

#[cfg(test)]
mod tests {
    use xtask::lab::link;

    use super::*;

    #[test]
    fn the_search_finds_the_peak_and_stops_behind_it() {
        let mut n_steps = 0;
        let best = search(|rate| {
            n_steps += 1;
            let received_pps = if rate < 60_000.0 { rate } else { 25_000.0 };
            Ok(Offered {
                sent_pps: rate,
                received_pps,
            })
        });

        assert_eq!((best.unwrap(), n_steps), (50_625.0, 6));
    }

    #[test]
    fn loss_is_the_share_of_what_was_sent() {
        let offered = Offered {
            sent_pps: 400.0,
            received_pps: 300.0,
        };

        assert!((offered.loss_percent() - 25.0).abs() < 1e-9);
    }

    #[test]
    fn packets_at_a_modest_rate_arrive() {
        let hosts = [Namespace::unique("a").unwrap(), Namespace::unique("b").unwrap()];
        let [a, b] = &hosts;
        link((a, "u0", &["192.0.2.1/24"]), (b, "u0", &["192.0.2.2/24"])).unwrap();
        let datagrams = Datagrams {
            hosts: &hosts,
            to: [192, 0, 2, 2].into(),
            payload_bytes: 64,
            duration: Duration::from_millis(300),
        };

        let offered = datagrams.offer(5_000.0).unwrap();

        assert!((2_000.0..6_000.0).contains(&offered.sent_pps), "{offered:?}");
        assert!(offered.loss_percent() < 5.0, "{offered:?}");
    }
}
