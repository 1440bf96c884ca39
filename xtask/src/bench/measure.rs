//! The measurements of one tunnel over one link.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cpu::{busy_seconds, resident_mib};
use super::datagrams::Datagrams;
use super::figure::{Figure, LinkKind, Samples};
use super::overlay::Overlay;
use super::peers::Tunnel;
use super::silence::longest_silence;
use super::underlay::{HostPair, OTHER_OUTER, OUTER};
use xtask::lab::probe::{IperfReport, IperfServer, PingPlan, PingReport, iperf};

/// Interval of pings, short enough that the CPUs do not fall into a sleep whose end takes longer than the packet's way.
const PING_INTERVAL: Duration = Duration::from_millis(2);
/// Interval for links where an answer takes longer: there `ping` cannot keep an interval below 10 ms.
const SLOW_PING_INTERVAL: Duration = Duration::from_millis(10);
/// Interval on a slow link, which pings are not to fill.
const RARE_PING_INTERVAL: Duration = Duration::from_millis(50);
/// Time by which a load begins before the pings beside it, until TCP has found its rate, and ends after them.
const MARGIN: Duration = Duration::from_secs(1);

/// A tunnel over a link, ready to be measured.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) underlay: &'a HostPair,
    pub(super) tunnel: &'a Tunnel,
    pub(super) link: LinkKind,
    pub(super) duration: Duration,
    /// Whether only what a change of a program is likely to change is measured.
    pub(super) is_short: bool,
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
    ("TCP in VXLAN", tcp_in_vxlan),
    ("ping under load", ping_under_load),
    ("UDP of 64 B", small_datagrams),
    ("UDP of 1200 B", large_datagrams),
    ("bursts", bursts),
    ("memory", memory),
];
/// What is looked at after a change of a program: enough to see what it gains and costs.
const SHORT: &[(&str, Step)] = &[
    ("ping", ping_idle),
    ("TCP", tcp_and_cpu),
    ("TCP in reverse", |site| {
        site.tcp(Figure::TcpReverse, &["--reverse"])
    }),
    ("TCP of 4 flows", |site| site.tcp(Figure::Tcp4, &["--parallel=4"])),
    ("ping under load", ping_under_load),
    ("UDP of 64 B", small_datagrams),
];
const SLOW: &[(&str, Step)] = &[("ping", ping_idle), ("upload", upload)];
/// It leaves the first host with another address, for a moment.
const MOVING: &[(&str, Step)] = &[("a new address", new_address)];
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
            _ if self.is_short => &[SHORT],
            LinkKind::Offloads => &[EVERYWHERE, NEAR],
            LinkKind::Frames => &[EVERYWHERE, NEAR, LOSS, MOVING],
            LinkKind::Far => &[EVERYWHERE, LOSS],
            LinkKind::Slow100 | LinkKind::Slow10 | LinkKind::Slow1 => &[SLOW],
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
        LinkKind::Offloads | LinkKind::Frames => PING_INTERVAL,
        LinkKind::Far => SLOW_PING_INTERVAL,
        LinkKind::Slow100 | LinkKind::Slow10 | LinkKind::Slow1 => RARE_PING_INTERVAL,
    };
    let before = busy_seconds()?;
    let pings = site.ping(interval)?;
    let busy = busy_seconds()? - before;
    let mut values = percentiles(&pings, Figure::PingIdle50, Figure::PingIdle99)?;
    // Rare ones cost less than what else the machine does, and a delay line works all the time.
    if interval == PING_INTERVAL {
        values.push((Figure::CpuPerPing, busy * 1e6 / f64::from(pings.n_sent)));
    }
    Ok(values)
}

fn ping_under_load(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let (_load, pings) = pings_beside_load(site, SLOW_PING_INTERVAL)?;
    percentiles(&pings, Figure::PingLoad50, Figure::PingLoad99)
}

fn upload(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let (load, pings) = pings_beside_load(site, RARE_PING_INTERVAL)?;
    let mut values = percentiles(&pings, Figure::PingLoad50, Figure::PingLoad99)?;
    values.push((Figure::Upload, load.received_bits_per_second * 1e-6));
    Ok(values)
}

fn pings_beside_load(site: &Site<'_>, interval: Duration) -> Result<(IperfReport, PingReport)> {
    let (load, pings) = thread::scope(|scope| {
        let load = scope.spawn(|| site.iperf(site.duration * 3 / 2 + 2 * MARGIN, &[]));
        thread::sleep(MARGIN);
        let pings = site.ping(interval);
        (load.join().expect("the load does not panic"), pings)
    });
    Ok((load.context("the load")?, pings?))
}

fn tcp_in_vxlan(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let overlay = Overlay::over(&site.underlay.hosts, site.tunnel.addresses())?;
    let [a, b] = &site.underlay.hosts;
    let _server = IperfServer::start(b)?;
    let report = iperf(a, overlay.to(), site.duration, &[])?;
    Ok(vec![(Figure::Vxlan, report.received_bits_per_second * 1e-9)])
}

fn bursts(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let lost_percent = site.datagrams(1200).bursts()?;
    Ok(vec![(Figure::BurstLost, lost_percent)])
}

fn new_address(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    if site.tunnel.is_bare() {
        return Ok(Vec::new());
    }
    let [own, _] = OUTER;
    let silence = longest_silence(site.underlay.hosts.each_ref(), site.tunnel.to, || {
        site.underlay.readdress(own, OTHER_OUTER)
    });
    site.underlay.readdress(OTHER_OUTER, own)?;
    Ok(vec![(Figure::Silence, silence?.as_secs_f64())])
}

fn small_datagrams(site: &Site<'_>) -> Result<Vec<(Figure, f64)>> {
    let datagrams = site.datagrams(64);
    let best = datagrams.best()?;
    let best_pps = best.offered.received_pps;
    let before = busy_seconds()?;
    let overload = datagrams.offer(3.0 * best_pps)?;
    let busy = busy_seconds()? - before;
    let n_received = overload.received_pps * datagrams.offered_seconds();
    Ok(vec![
        (Figure::CpuPerPacket, busy * 1e6 / n_received),
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
