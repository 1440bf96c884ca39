//! An established TCP flow beside a flood of flows of one packet each, and beside as many packets of few flows.
//!
//! The receiving node makes few packets of many whose flow and length are the same. What a new flow costs shows beside
//! packets for which it cannot: each is longer than the one before it in its flow.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::stats::Summary;
use crate::build;
use xtask::lab::probe::{IperfServer, iperf};
use xtask::lab::{Node, Pair};

/// Packets per second of the flood and of the ordinary traffic.
const RATE: u64 = 100_000;
const BURST: u64 = 100;
/// Number of sockets: with every destination port there are more than a million flows.
const N_SOCKETS: u64 = 20;
const FIRST_PORT: u64 = 10_000;
const N_PORTS: u64 = 55_000;
const PAYLOAD: [u8; 66] = [0; 66];
const MEAN_LEN: usize = 64;
/// Time by which the flood begins before the measured flow and ends after it.
const MARGIN: Duration = Duration::from_secs(1);

/// Number of rounds through all cases; the medians count.
const N_ROUNDS: usize = 3;

/// The cases: what is sent beside the measured flow.
const CASES: [(&str, u64, Lengths); 3] = [
    ("of few flows", 1, Lengths::Equal),
    ("of few flows, each longer", 1, Lengths::Growing),
    ("of one-packet flows", N_PORTS, Lengths::Growing),
];

/// Prints the throughput of the TCP flow in all cases, and the memory of the node.
pub(super) fn run(duration: Duration) -> Result<()> {
    let pair = Pair::unique(&build::node(&build::Profile::release())?)?;
    let server = IperfServer::start(&pair.b.host)?;
    println!("\nbeside {RATE} UDP packets/s of {MEAN_LEN} B  | TCP Gbit/s | flows begun | node's memory MiB");
    let mut rates = CASES.map(|_| Vec::new());
    for _ in 0..N_ROUNDS {
        for ((name, n_ports, lengths), rates) in CASES.into_iter().zip(&mut rates) {
            let (rate, n_flows) = beside(&pair, n_ports, lengths, duration)?;
            println!(
                "{name:<35}  | {:>10.2} | {n_flows:>11} | {:>17.1}",
                rate * 1e-9,
                resident_mib(&pair.a.node)?
            );
            rates.push(rate);
        }
    }
    drop(server);
    let [equal, growing, flood] = rates.map(|rates| Summary::of(&rates).map_or(0.0, |rates| rates.median));
    println!(
        "throughput under the flood: {:.0} % of that beside few flows, {:.0} % where nothing is joined",
        100.0 * flood / equal,
        100.0 * flood / growing,
    );
    Ok(())
}

/// Lengths of the packets of a burst that have one socket.
#[derive(Clone, Copy)]
enum Lengths {
    Equal,
    Growing,
}

impl Lengths {
    /// Returns the length of the `n`th packet.
    fn of(self, n: u64) -> usize {
        const ROUNDS: u64 = BURST / N_SOCKETS;
        match self {
            Self::Equal => MEAN_LEN,
            Self::Growing => MEAN_LEN + (n / N_SOCKETS % ROUNDS) as usize - ROUNDS as usize / 2,
        }
    }
}

/// Returns the TCP bits per second, and the number of flows among the packets beside it.
fn beside(pair: &Pair, n_ports: u64, lengths: Lengths, duration: Duration) -> Result<(f64, u64)> {
    let (stop, n_sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pair.a
                .host
                .enter(|| send(pair.b.v4, n_ports, lengths, &stop, &n_sent))
        });
        thread::sleep(MARGIN);
        let report = iperf(&pair.a.host, pair.b.v4, duration, &[]);
        thread::sleep(MARGIN);
        stop.store(true, Relaxed);
        let sent = sender.join().expect("the sender does not panic");
        let n_flows = n_sent.load(Relaxed).min(N_SOCKETS * n_ports);
        sent.and(report)
            .map(|report| (report.received_bits_per_second, n_flows))
    })
}

fn send(to: IpAddr, n_ports: u64, lengths: Lengths, stop: &AtomicBool, n_sent: &AtomicU64) -> Result<()> {
    let sockets: Vec<UdpSocket> = (0..N_SOCKETS)
        .map(|_| UdpSocket::bind(("0.0.0.0", 0)))
        .collect::<Result<_, _>>()
        .context("cannot open a socket")?;
    let started = Instant::now();
    let mut n = 0;
    while !stop.load(Relaxed) {
        for _ in 0..BURST {
            let socket = &sockets[(n % N_SOCKETS) as usize];
            let port = FIRST_PORT + n / N_SOCKETS % n_ports;
            // Refusals are part of the load: a full queue, or the port unreachable of an earlier packet.
            let _ = socket.send_to(&PAYLOAD[..lengths.of(n)], (to, port as u16));
            n += 1;
        }
        n_sent.store(n, Relaxed);
        let due = Duration::from_nanos(n * 1_000_000_000 / RATE);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}

fn resident_mib(node: &Node) -> Result<f64> {
    let pid = node.process_id().context("the node does not run")?;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).context("cannot read the node's memory")?;
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<f64>().ok());
    Ok(pages.context("statm holds no number")? * 4096.0 / 1048576.0)
}
