//! The measurements of one tunnel over one link.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cpu::{busy_seconds, resident_mib};
use super::datagrams::Datagrams;
use super::figure::{Figure, LinkKind, Samples};
use super::peers::Tunnel;
use super::underlay::HostPair;
use xtask::lab::probe::{IperfReport, IperfServer, PingPlan, PingReport, iperf};

/// Interval of pings, short enough that the CPUs do not fall into a sleep whose end takes longer than the packet's way.
const PING_INTERVAL: Duration = Duration::from_millis(2);
/// Interval for links where an answer takes longer: there `ping` cannot keep an interval below 10 ms.
const SLOW_PING_INTERVAL: Duration = Duration::from_millis(10);
/// Time by which a load begins before the pings beside it, until TCP has found its rate, and ends after them.
const MARGIN: Duration = Duration::from_secs(1);

/// A tunnel over a link, ready to be measured.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) underlay: &'a HostPair,
    pub(super) tunnel: &'a Tunnel,
    pub(super) link: LinkKind,
    pub(super) duration: Duration,
}

type Step = fn(&Site<'_>) -> Result<Vec<(Figure, f64)>>;

const EVERYWHERE: &[(&str, Step)] = &[
    ("ping", ping_idle),
    ("TCP", tcp_and_cpu),
    ("TCP of 4 flows", |site| site.tcp(Figure::Tcp4, &["--parallel=4"])),
];
const NEAR: &[(&str, Step)] = &[
    ("TCP in reverse", |site| {
        site.tcp(Figure::TcpReverse, &["--reverse"])
    }),
    ("TCP of 4 flows in reverse", |site| {
        site.tcp(Figure::Tcp4Reverse, &["--parallel=4", "--reverse"])
    }),
    ("TCP both ways", |site| site.tcp(Figure::TcpBoth, &["--bidir"])),
    ("ping under load", ping_under_load),
    ("UDP of 64 B", small_datagrams),
    ("UDP of 1200 B", large_datagrams),
    ("memory", memory),
];
/// Rates of loss. They are measured where a lost packet is one frame: with offloads it would be up to 64 KiB at once.
const LOSS: &[(&str, Step)] = &[
    ("TCP with 0.1 % loss", |site| {
        site.tcp_with_loss(Figure::TcpLoss1, 1)
    }),
    ("TCP with 0.5 % loss", |site| {
        site.tcp_with_loss(Figure::TcpLoss5, 5)
    }),
    ("TCP with 2 % loss", |site| {
        site.tcp_with_loss(Figure::TcpLoss20, 20)
    }),
];

impl Site<'_> {
    /// Measures everything that belongs to the link; returns what was measured, and what failed.
    pub(super) fn measure(&self) -> (Samples, Vec<String>) {
        let (mut samples, mut failures) = (Samples::new(), Vec::new());
        for (name, step) in self.steps() {
            // On a busy machine a tool may give up once.
            match step(self).or_else(|_first| step(self)) {
                Ok(values) => {
                    for (figure, value) in values {
                        samples.entry((self.link, figure)).or_default().push(value);
                    }
                }
                Err(error) => failures.push(format!("{name}: {error:#}")),
            }
        }
        (samples, failures)
    }

    fn steps(&self) -> Vec<(&'static str, Step)> {
        let of_link: &[&[(&str, Step)]] = match self.link {
            LinkKind::Offloads => &[EVERYWHERE, NEAR],
            LinkKind::Frames => &[EVERYWHERE, NEAR, LOSS],
            LinkKind::Far => &[EVERYWHERE, LOSS],
        };
        of_link.concat()
    }

    fn iperf(&self, duration: Duration, args: &[&str]) -> Result<IperfReport> {
        let [a, b] = &self.underlay.hosts;
        // A new server for each run: one that still ends a run refuses the next.
        let _server = IperfServer::start(b)?;
        iperf(a, self.tunnel.to, duration, args)
    }

    fn tcp(&self, figure: Figure, args: &[&str]) -> Result<Vec<(Figure, f64)>> {
        let report = self.iperf(self.duration, args)?;
        let bits = report.received_bits_per_second + report.reverse_bits_per_second.unwrap_or(0.0);
        Ok(vec![(figure, bits * 1e-9)])
    }

    fn tcp_with_loss(&self, figure: Figure, per_mille: u32) -> Result<Vec<(Figure, f64)>> {
        self.underlay.lose(per_mille)?;
        let measured = self.tcp(figure, &[]);
        self.underlay.lose(0)?;
        measured
    }

    fn datagrams(&self, payload_bytes: usize) -> Datagrams<'_> {
        Datagrams {
            hosts: self.underlay.hosts.each_ref(),
            to: self.tunnel.to,
            payload_bytes,
            duration: self.duration,
        }
    }

    fn ping(&self, interval: Duration) -> Result<PingReport> {
        let [a, _] = &self.underlay.hosts;
        let count = self.duration.as_millis() / interval.as_millis();
        PingPlan {
            count: count as u32,
            interval,
            ..PingPlan::new(self.tunnel.to)
        }
        .run(a)
    }
}

fn tcp_and_cpu(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let before = busy_seconds()?;
    let report = site.iperf(site.duration, &[])?;
    let busy = busy_seconds()? - before;
    let bits = report.received_bits_per_second;
    let gib = bits / 8.0 * site.duration.as_secs_f64() / f64::from(1 << 30);
    let mut values = vec![(Figure::Tcp, bits * 1e-9)];
    // A delay line in user space works more than the tunnel.
    if site.link != LinkKind::Far {
        values.push((Figure::CpuPerGib, busy / gib));
    }
    Ok(values)
}

fn ping_idle(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let interval = match site.link {
        LinkKind::Far => SLOW_PING_INTERVAL,
        _ => PING_INTERVAL,
    };
    percentiles(&site.ping(interval)?, Figure::PingIdle50, Figure::PingIdle99)
}

fn ping_under_load(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let (load, pings) = thread::scope(|scope| {
        let load = scope.spawn(|| site.iperf(site.duration * 3 / 2 + 2 * MARGIN, &[]));
        thread::sleep(MARGIN);
        let pings = site.ping(SLOW_PING_INTERVAL);
        (load.join().expect("the load does not panic"), pings)
    });
    load.context("the load")?;
    percentiles(&pings?, Figure::PingLoad50, Figure::PingLoad99)
}

fn small_datagrams(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let datagrams = site.datagrams(64);
    let best = datagrams.best()?;
    let best_pps = best.offered.received_pps;
    let overload = datagrams.offer(3.0 * best_pps)?;
    Ok(vec![
        (Figure::SmallRate, best_pps * 1e-3),
        (Figure::SmallLoss, best.offered.loss_percent()),
        (Figure::SmallClean, best.clean_pps * 1e-3),
        (Figure::SmallOverload, overload.received_pps * 1e-3),
        (Figure::SmallOffered, overload.sent_pps / best_pps),
    ])
}

fn large_datagrams(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let datagrams = site.datagrams(1200);
    let best = datagrams.best()?;
    let gbits_per_packet = 8e-9 * datagrams.payload_bytes as f64;
    Ok(vec![
        (Figure::LargeRate, best.offered.received_pps * gbits_per_packet),
        (Figure::LargeLoss, best.offered.loss_percent()),
        (Figure::LargeClean, best.clean_pps * gbits_per_packet),
    ])
}

fn percentiles(pings: &PingReport, p50: Figure, p99: Figure) -> Result<Vec<(Figure, f64)>> {
    let at = |percent| pings.percentile_ms(percent).context("no ping was answered");
    Ok(vec![(p50, at(50)?), (p99, at(99)?)])
}

fn memory(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let mut largest: Option<f64> = None;
    for pid in site.tunnel.process_ids() {
        let size = resident_mib(pid)?;
        largest = Some(largest.map_or(size, |other| other.max(size)));
    }
    Ok(largest.map(|size| (Figure::Resident, size)).into_iter().collect())
}
