//! An established TCP flow beside a flood of flows of one packet each, and beside as many packets of few flows.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::lab::probe::{IperfServer, iperf};
use xtask::lab::{Node, Pair};

use crate::build;

/// Packets per second of the flood and of the ordinary traffic.
const RATE: u64 = 100_000;
const BURST: u64 = 100;
/// Sockets, so that with every destination port there are more than a million flows.
const N_SOCKETS: u64 = 20;
const FIRST_PORT: u64 = 10_000;
const N_PORTS: u64 = 55_000;
const PAYLOAD: [u8; 64] = [0; 64];
/// The flood begins before the measured flow and ends after it.
const MARGIN: Duration = Duration::from_secs(1);

/// Prints the throughput of the TCP flow in both cases, and the memory of the node.
pub(super) fn run(duration: Duration) -> Result<()> {
    let pair = Pair::unique(&build::node(&build::Profile::release())?)?;
    let server = IperfServer::start(&pair.b.host)?;
    println!("\nbeside {RATE} UDP packets/s of 64 B   | TCP Gbit/s | flows begun | node's memory MiB");
    let mut rates = Vec::new();
    for (name, n_ports) in [("of few flows", 1), ("of one-packet flows", N_PORTS)] {
        let (rate, n_flows) = beside(&pair, n_ports, duration)?;
        println!(
            "{name:<36}  | {:>10.2} | {n_flows:>11} | {:>17.1}",
            rate * 1e-9,
            resident_mib(&pair.a.node)?
        );
        rates.push(rate);
    }
    drop(server);
    if let [ordinary, flood] = rates[..] {
        println!(
            "throughput under the flood: {:.0} % of ordinary",
            100.0 * flood / ordinary
        );
    }
    Ok(())
}

/// TCP bits per second, and flows that the packets beside it were.
fn beside(pair: &Pair, n_ports: u64, duration: Duration) -> Result<(f64, u64)> {
    let (stop, n_sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| pair.a.host.enter(|| send(pair.b.v4, n_ports, &stop, &n_sent)));
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

fn send(to: IpAddr, n_ports: u64, stop: &AtomicBool, n_sent: &AtomicU64) -> Result<()> {
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
            let _ = socket.send_to(&PAYLOAD, (to, port as u16));
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
