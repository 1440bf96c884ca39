//! UDP packets at a chosen rate, small ones too: iperf3 cannot send enough of them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};

use xtask::lab::Namespace;
use xtask::lab::mmsg::{self, BATCH};

/// Rate at which the search for the best rate begins, far below what any VPN carries.
const FIRST_RATE_PPS: f64 = 20_000.0;
const RATE_STEP: f64 = 1.6;
/// Loss in percent up to which a rate counts as carried.
const CLEAN_PERCENT: f64 = 1.0;
/// The search ends when less than this share of the intended rate is received.
const SATURATED: f64 = 0.5;
const MAX_STEPS: usize = 12;
/// Divisor of a measurement's time that gives the time of a step of the search.
const STEP_SHARE: u32 = 3;
const MIN_STEP: Duration = Duration::from_millis(500);
/// Time before counting begins, in which the queues on the way fill up: what fits in them is not a rate.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longest time that a sender makes up for when it was not run.
const MAX_BEHIND: Duration = Duration::from_millis(5);
/// Packets of a burst, how many bursts there are, and the time between two, after which all that comes has come.
const BURST_PACKETS: usize = 1000;
const N_BURSTS: usize = 5;
const BURST_PAUSE: Duration = Duration::from_millis(300);
/// Interval at which a receiver without packets checks whether it is done.
const PATIENCE: Duration = Duration::from_millis(20);
/// Receive buffer for 10 ms of a million packets a second, so that the receiver's sleep is not what is measured.
const SOCKET_BYTES: usize = 16 << 20;
const BUFFER_BYTES: usize = 2048;

/// The result of packets offered at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoadResult {
    /// Packets sent in a second.
    pub(super) sent_pps: f64,
    /// Packets received in a second.
    pub(super) received_pps: f64,
}

impl LoadResult {
    /// Returns the percentage of the packets that were not received.
    pub(super) fn loss_percent(&self) -> f64 {
        100.0 * (1.0 - self.received_pps / self.sent_pps).max(0.0)
    }
}

/// What the search for the best rate found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BestRate {
    /// The result at the rate of which most was received.
    pub(super) offered: LoadResult,
    /// The highest received rate at which almost nothing was lost, in packets a second.
    pub(super) clean_pps: f64,
}

/// Packets of a size from one host to another, from as many senders as there are CPUs.
#[derive(Debug)]
pub(super) struct Datagrams<'a> {
    pub(super) hosts: [&'a Namespace; 2],
    pub(super) to: IpAddr,
    pub(super) payload_bytes: usize,
    pub(super) duration: Duration,
}

impl Datagrams<'_> {
    /// Offers more and more until most is lost.
    pub(super) fn best(&self) -> Result<BestRate> {
        let step = (self.duration / STEP_SHARE).max(MIN_STEP);
        search(|rate_pps| self.offer_for(rate_pps, step))
    }

    /// Offers packets at a rate.
    pub(super) fn offer(&self, rate_pps: f64) -> Result<LoadResult> {
        self.offer_for(rate_pps, self.duration)
    }

    /// Returns how long an offer takes, with what is not counted of it.
    pub(super) fn offered_seconds(&self) -> f64 {
        (WARM_UP + self.duration).as_secs_f64()
    }

    /// Sends bursts, each as fast as one thread sends, and returns the percentage of their packets that was lost.
    pub(super) fn bursts(&self) -> Result<f64> {
        let [from, at] = self.hosts;
        let receiver = self.receiver(at)?;
        let to = receiver.local_addr()?;
        let traffic = DatagramCounters::default();
        thread::scope(|scope| {
            scope.spawn(|| traffic.receive(&receiver));
            let sent = from.enter(|| traffic.send_bursts(to, self.payload_bytes));
            thread::sleep(BURST_PAUSE);
            traffic.stop.store(true, Relaxed);
            sent
        })?;
        let (n_sent, n_received) = traffic.counts();
        Ok(100.0 * (1.0 - n_received as f64 / n_sent as f64).max(0.0))
    }

    fn receiver(&self, at: &Namespace) -> Result<UdpSocket> {
        at.enter(|| {
            let socket = UdpSocket::bind((self.to, 0)).context("cannot receive UDP")?;
            setsockopt(&socket, RcvBufForce, &SOCKET_BYTES)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    }

    fn offer_for(&self, rate_pps: f64, duration: Duration) -> Result<LoadResult> {
        let [from, at] = self.hosts;
        let receiver = self.receiver(at)?;
        let to = receiver.local_addr()?;
        let n_senders = thread::available_parallelism()?.get();
        let share_pps = rate_pps / n_senders as f64;
        let traffic = DatagramCounters::default();
        let (n_sent, n_received, seconds) = thread::scope(|scope| {
            scope.spawn(|| traffic.receive(&receiver));
            let senders: Vec<_> = (0..n_senders)
                .map(|_| scope.spawn(|| from.enter(|| traffic.send(to, self.payload_bytes, share_pps))))
                .collect();
            thread::sleep(WARM_UP);
            let (before, started) = (traffic.counts(), Instant::now());
            thread::sleep(duration);
            let (after, elapsed) = (traffic.counts(), started.elapsed());
            traffic.stop.store(true, Relaxed);
            for sender in senders {
                sender.join().expect("a sender does not panic")?;
            }
            Ok::<_, anyhow::Error>((after.0 - before.0, after.1 - before.1, elapsed.as_secs_f64()))
        })?;
        ensure!(n_sent > 0, "no packet was sent");
        Ok(LoadResult {
            sent_pps: n_sent as f64 / seconds,
            received_pps: n_received as f64 / seconds,
        })
    }
}

/// Offers more and more until most is lost or the senders' limit is far behind.
fn search(mut offer: impl FnMut(f64) -> Result<LoadResult>) -> Result<BestRate> {
    let mut rate = FIRST_RATE_PPS;
    let mut best = BestRate {
        offered: offer(rate)?,
        clean_pps: 0.0,
    };
    let mut offered = best.offered;
    for _ in 1..MAX_STEPS {
        if offered.received_pps > best.offered.received_pps {
            best.offered = offered;
        }
        if offered.loss_percent() <= CLEAN_PERCENT {
            best.clean_pps = best.clean_pps.max(offered.received_pps);
        }
        if offered.received_pps < SATURATED * rate {
            break;
        }
        rate *= RATE_STEP;
        offered = offer(rate)?;
    }
    Ok(best)
}

/// The counts of senders and receiver, and the request to stop.
#[derive(Debug, Default)]
struct DatagramCounters {
    n_sent: AtomicU64,
    n_received: AtomicU64,
    stop: AtomicBool,
}

impl DatagramCounters {
    fn counts(&self) -> (u64, u64) {
        (self.n_sent.load(Relaxed), self.n_received.load(Relaxed))
    }

    fn send(&self, to: SocketAddr, payload_bytes: usize, rate_pps: f64) -> Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot send UDP")?;
        socket.connect(to).context("cannot send UDP")?;
        let payload = vec![0; payload_bytes];
        let packets = [IoSlice::new(&payload); BATCH];
        let max_behind = (rate_pps * MAX_BEHIND.as_secs_f64()).max(BATCH as f64) as u64;
        let pause = Duration::from_secs_f64(BATCH as f64 / rate_pps / 2.0).min(MAX_BEHIND / 2);
        let mut n_done = 0;
        let started = Instant::now();
        while !self.stop.load(Relaxed) {
            let n_due = (started.elapsed().as_secs_f64() * rate_pps) as u64;
            n_done = n_done.max(n_due.saturating_sub(max_behind));
            let n_packets = n_due.saturating_sub(n_done).min(BATCH as u64);
            if n_packets == 0 {
                thread::sleep(pause);
                continue;
            }
            // A packet that the own host refuses was offered, too.
            let n_gone = mmsg::send(socket.as_fd(), &packets[..n_packets as usize]).unwrap_or(1) as u64;
            n_done += n_gone;
            self.n_sent.fetch_add(n_gone, Relaxed);
        }
        Ok(())
    }

    fn send_bursts(&self, to: SocketAddr, payload_bytes: usize) -> Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot send UDP")?;
        setsockopt(&socket, SndBufForce, &SOCKET_BYTES)?;
        socket.connect(to).context("cannot send UDP")?;
        let payload = vec![0; payload_bytes];
        let packets = [IoSlice::new(&payload); BATCH];
        for _ in 0..N_BURSTS {
            let mut n_left = BURST_PACKETS;
            while n_left > 0 {
                let n_packets = n_left.min(BATCH);
                n_left -= mmsg::send(socket.as_fd(), &packets[..n_packets]).context("cannot send UDP")?;
            }
            self.n_sent.fetch_add(BURST_PACKETS as u64, Relaxed);
            thread::sleep(BURST_PAUSE);
        }
        Ok(())
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut bytes = vec![[0; BUFFER_BYTES]; BATCH];
        let mut buffers: Vec<IoSliceMut<'_>> = bytes.iter_mut().map(|one| IoSliceMut::new(one)).collect();
        while !self.stop.load(Relaxed) {
            // An error is a receive time-out.
            if let Ok(lengths) = mmsg::receive(socket.as_fd(), &mut buffers, true) {
                self.n_received.fetch_add(lengths.count() as u64, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::lab::link;

    #[test]
    fn the_search_finds_the_peak_and_stops_behind_it() {
        let mut n_steps = 0;
        let best = search(|rate| {
            n_steps += 1;
            let received_pps = if rate < 60_000.0 { rate } else { 25_000.0 };
            Ok(LoadResult {
                sent_pps: rate,
                received_pps,
            })
        });

        let best = best.unwrap();
        assert_eq!(
            (best.offered.received_pps, best.clean_pps, n_steps),
            (51_200.0, 51_200.0, 4)
        );
    }

    #[test]
    fn loss_is_the_share_of_what_was_sent() {
        let offered = LoadResult {
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
            hosts: hosts.each_ref(),
            to: [192, 0, 2, 2].into(),
            payload_bytes: 64,
            duration: Duration::from_millis(300),
        };

        let offered = datagrams.offer(5_000.0).unwrap();

        assert!((2_000.0..6_000.0).contains(&offered.sent_pps), "{offered:?}");
        assert!(offered.loss_percent() < 5.0, "{offered:?}");
    }
}
