//! Traffic over a network, and what came of it.

mod datagrams;
mod gate;
mod iperf;
mod sequence;
mod tally;
pub mod udp;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Namespace;
use super::process::{output, patient, text};
pub use datagrams::datagrams;
pub use gate::{Gate, OpenOnDrop};
pub use iperf::{IperfReport, IperfServer, iperf};
pub use sequence::SequenceCheck;
pub use tally::Tally;
pub use udp::UdpPlan;

/// A run of `ping`.
#[derive(Clone, Debug)]
pub struct PingPlan {
    /// Where to.
    pub to: IpAddr,
    /// How many.
    pub count: u32,
    /// Time between two, and the least that the last answer may take once there was one.
    pub interval: Duration,
    /// Bytes after the ICMP header.
    pub payload_bytes: u32,
    /// How long the first answer may take.
    pub patience: Duration,
}

/// What `ping` reported.
#[derive(Clone, Debug, PartialEq)]
pub struct PingReport {
    /// Requests sent.
    pub n_sent: u32,
    /// Answers received.
    pub n_received: u32,
    /// Round trips in milliseconds, shortest first; empty when the payload has no room for a time stamp.
    pub rtts_ms: Vec<f64>,
}

impl PingPlan {
    /// Returns a few pings of the usual size.
    pub fn new(to: IpAddr) -> Self {
        Self {
            to,
            count: 3,
            interval: Duration::from_millis(100),
            payload_bytes: 56,
            patience: Duration::from_secs(2),
        }
    }

    /// Runs it in a namespace.
    ///
    /// # Errors
    /// When `ping` cannot run or prints no summary; lost packets are no error.
    pub fn run(&self, host: &Namespace) -> Result<PingReport> {
        let seconds = |duration: Duration| duration.as_secs_f64().to_string();
        let limit = self.interval * self.count + self.patience + Duration::from_secs(10);
        let output = output(
            host.command("ping")
                .args(["-n", "-c", &self.count.to_string(), "-i", &seconds(self.interval)])
                .args([
                    "-s",
                    &self.payload_bytes.to_string(),
                    "-W",
                    &seconds(patient(self.patience)),
                ])
                .arg(self.to.to_string()),
            limit,
        )?;
        let printed = String::from_utf8_lossy(&output.stdout);
        PingReport::parse(&printed).with_context(|| {
            format!(
                "ping printed {printed}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}

impl PingReport {
    /// Requests without an answer.
    pub fn n_lost(&self) -> u32 {
        self.n_sent.saturating_sub(self.n_received)
    }

    /// Returns the round trip in milliseconds that this share of the answers stayed below.
    pub fn percentile_ms(&self, percent: usize) -> Option<f64> {
        let last = self.rtts_ms.len().checked_sub(1)?;
        self.rtts_ms.get(last * percent.min(100) / 100).copied()
    }

    fn parse(printed: &str) -> Result<Self> {
        let summary = printed
            .lines()
            .find(|line| line.contains(" packets transmitted, "))
            .context("no summary")?;
        let mut numbers = summary
            .split(", ")
            .map(|part| part.split(' ').next().unwrap_or_default().parse::<u32>());
        let mut next = || -> Result<u32> { Ok(numbers.next().context("a short summary")??) };
        let (n_sent, n_received) = (next()?, next()?);
        let mut rtts_ms = Vec::new();
        for line in printed.lines() {
            if let Some((_, time)) = line.split_once(" time=") {
                rtts_ms.push(
                    time.trim_end_matches(" ms")
                        .parse()
                        .context("a time that is no number")?,
                );
            }
        }
        rtts_ms.sort_by(f64::total_cmp);
        Ok(Self {
            n_sent,
            n_received,
            rtts_ms,
        })
    }
}

/// Pings an address once; true when the answer came in time.
///
/// # Errors
/// When `ping` cannot run.
pub fn answers(host: &Namespace, to: IpAddr, patience: Duration) -> Result<bool> {
    let plan = PingPlan {
        count: 1,
        patience,
        ..PingPlan::new(to)
    };
    Ok(plan.run(host)?.n_received == 1)
}

/// Returns the path MTU in bytes that `tracepath` finds.
///
/// # Errors
/// When it finds none.
pub fn path_mtu(host: &Namespace, to: IpAddr) -> Result<u32> {
    let printed = text(
        host.command("tracepath").args(["-n", "-m", "3", &to.to_string()]),
        Duration::from_secs(20),
    )?;
    resumed_mtu(&printed).with_context(|| format!("tracepath printed {printed}"))
}

fn resumed_mtu(printed: &str) -> Option<u32> {
    let (_, resume) = printed.split_once("Resume: pmtu ")?;
    resume.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::link;

    #[test]
    fn a_lost_ping_and_a_path_mtu_are_seen_on_a_cable() {
        let (left, right) = (
            Namespace::unique("left").unwrap(),
            Namespace::unique("right").unwrap(),
        );
        link(
            (&left, "u0", &["192.0.2.1/24"]),
            (&right, "u0", &["192.0.2.2/24"]),
        )
        .unwrap();
        let patience = Duration::from_millis(300);

        assert!(answers(&left, [192, 0, 2, 2].into(), patience).unwrap());
        assert!(!answers(&left, [192, 0, 2, 3].into(), patience).unwrap());
        assert_eq!(path_mtu(&left, [192, 0, 2, 2].into()).unwrap(), 1500);
        let full = PingPlan {
            payload_bytes: 8000,
            count: 5,
            ..PingPlan::new([192, 0, 2, 2].into())
        };
        let report = full.run(&left).unwrap();
        assert_eq!(
            (report.n_sent, report.n_received, report.rtts_ms.len()),
            (5, 5, 5)
        );
    }

    #[test]
    fn a_ping_report_is_read_from_what_ping_prints() {
        let printed = "PING 10.42.0.2 (10.42.0.2) 56(84) bytes of data.\n\
            64 bytes from 10.42.0.2: icmp_seq=1 ttl=64 time=0.9 ms\n\
            64 bytes from 10.42.0.2: icmp_seq=3 ttl=64 time=0.100 ms\n\n\
            --- 10.42.0.2 ping statistics ---\n\
            3 packets transmitted, 2 received, +1 errors, 33.3% packet loss, time 20ms\n";

        let report = PingReport::parse(printed).unwrap();

        assert_eq!(
            report,
            PingReport {
                n_sent: 3,
                n_received: 2,
                rtts_ms: vec![0.1, 0.9]
            }
        );
        assert_eq!(report.n_lost(), 1);
        assert_eq!(report.percentile_ms(50), Some(0.1));
        assert_eq!(report.percentile_ms(100), Some(0.9));
    }

    #[test]
    fn a_path_mtu_is_read_from_the_last_line() {
        let printed = " 1?: [LOCALHOST]   pmtu 1420\n 1:  10.42.0.2   0.3ms reached\n     Resume: pmtu 1280 hops 1 back 1 \n";

        assert_eq!(resumed_mtu(printed), Some(1280));
        assert_eq!(resumed_mtu(" 1?: [LOCALHOST]   pmtu 1420\n"), None);
    }
}
