//! Runs of iperf3.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::Namespace;
use crate::lab::process::{output, patience, signal, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// What a client says of a server that has not ended with the last one, or does not listen again yet.
const BETWEEN_CLIENTS: [&str; 2] = ["the server is busy", "Connection refused"];

/// How long a server may take until it is ready for the next client, and how often one tries.
const READY_LIMIT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// An iperf3 server, stopped on drop.
#[derive(Debug)]
pub struct IperfServer {
    process: Child,
    /// Held open: a server whose output nobody holds ends at its next line.
    printed: BufReader<ChildStdout>,
}

/// What iperf3's client reported, per direction.
#[derive(Clone, Debug)]
pub struct IperfReport {
    /// Bits per second that the server received.
    pub received_bits_per_second: f64,
    /// Bits per second that the client sent in each second.
    pub of_each_second: Vec<f64>,
    /// Bits per second that the client received, with `--bidir`.
    pub reverse_bits_per_second: Option<f64>,
    /// TCP segments sent again, both directions together; none with UDP.
    pub n_retransmits: Option<u64>,
    /// UDP datagrams lost and sent.
    pub lost: Option<(u64, u64)>,
}

impl IperfServer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &Namespace) -> Result<Self> {
        let mut child = host
            .command("iperf3")
            .args(["--server", "--forceflush"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start iperf3")?;
        let printed = BufReader::new(child.stdout.take().context("the server's output is a pipe")?);
        let mut server = Self {
            process: child,
            printed,
        };
        let mut line = String::new();
        while server.printed.read_line(&mut line)? > 0 {
            if line.starts_with("Server listening") {
                return Ok(server);
            }
            line.clear();
        }
        bail!("the iperf3 server ended before it listened")
    }
}

impl Drop for IperfServer {
    fn drop(&mut self) {
        let ended = signal(&self.process, Signal::SIGKILL).and_then(|()| wait(&mut self.process, LIMIT));
        if let Err(error) = ended {
            eprintln!("cannot stop iperf3: {error:#}");
        }
    }
}

/// Runs an iperf3 client in a namespace, with further arguments. A server that is not ready for the next client is waited for.
///
/// # Errors
/// When it fails or reports nothing.
pub fn iperf(host: &Namespace, to: IpAddr, duration: Duration, args: &[&str]) -> Result<IperfReport> {
    let until = Instant::now() + READY_LIMIT * patience();
    loop {
        let report = run(host, to, duration, args)?;
        let Some(error) = report["error"].as_str() else {
            return IperfReport::of(&report).with_context(|| format!("iperf3 reported {}", report["end"]));
        };
        let is_between = BETWEEN_CLIENTS.iter().any(|said| error.contains(said));
        if !is_between || Instant::now() >= until {
            bail!("iperf3 to {to}: {error}");
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

fn run(host: &Namespace, to: IpAddr, duration: Duration, args: &[&str]) -> Result<Value> {
    let seconds = duration.as_secs().to_string();
    let output = output(
        host.command("iperf3")
            .args([
                "--json",
                "--connect-timeout",
                "5000",
                "--time",
                &seconds,
                "--client",
                &to.to_string(),
            ])
            .args(args),
        duration + LIMIT,
    )?;
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&printed).with_context(|| format!("iperf3 printed {printed}"))
}

impl IperfReport {
    fn of(report: &Value) -> Result<Self> {
        let end = &report["end"];
        let rate = |sum: &Value| sum["bits_per_second"].as_f64();
        let intervals = report["intervals"].as_array().context("no intervals")?;
        let of_each_second = intervals.iter().filter_map(|interval| rate(&interval["sum"]));
        let of_each_second = of_each_second.collect();
        if report["start"]["test_start"]["protocol"] == "UDP" {
            let sum = &end["sum"];
            let lost = sum["lost_packets"].as_u64().zip(sum["packets"].as_u64());
            let (n_lost, n_sent) = lost.context("no count of lost datagrams")?;
            let share = 1.0 - n_lost as f64 / n_sent.max(1) as f64;
            let sent = rate(sum).context("no rate")?;
            return Ok(Self {
                received_bits_per_second: sent * share,
                of_each_second,
                reverse_bits_per_second: None,
                n_retransmits: None,
                lost,
            });
        }
        let retransmits = |sum: &Value| sum["retransmits"].as_u64();
        let reverse = &end["sum_sent_bidir_reverse"];
        Ok(Self {
            received_bits_per_second: rate(&end["sum_received"]).context("no rate")?,
            of_each_second,
            reverse_bits_per_second: rate(&end["sum_received_bidir_reverse"]),
            n_retransmits: retransmits(&end["sum_sent"]).map(|n| n + retransmits(reverse).unwrap_or(0)),
            lost: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::link;

    #[test]
    fn a_run_over_a_cable_reports_every_direction() {
        let (left, right) = (
            Namespace::unique("left").unwrap(),
            Namespace::unique("right").unwrap(),
        );
        link(
            (&left, "u0", &["192.0.2.1/24"]),
            (&right, "u0", &["192.0.2.2/24"]),
        )
        .unwrap();
        let server = IperfServer::start(&right).unwrap();
        let run = |args| iperf(&left, [192, 0, 2, 2].into(), Duration::from_secs(1), args);

        let one_way = run(&[]).unwrap();
        let reverse = run(&["--reverse"]).unwrap();
        let both_ways = run(&["--bidir"]).unwrap();
        let datagrams = run(&["--udp", "--length=1200", "--bitrate=20M"]).unwrap();
        drop(server);
        let refused = run(&[]);

        for tcp in [&one_way, &reverse, &both_ways] {
            assert!(
                tcp.received_bits_per_second > 1e8 && tcp.n_retransmits.is_some(),
                "{tcp:?}"
            );
        }
        assert_eq!(one_way.reverse_bits_per_second, None);
        assert!(both_ways.reverse_bits_per_second.unwrap() > 1e8, "{both_ways:?}");
        let (n_lost, n_sent) = datagrams.lost.unwrap();
        assert!(n_lost == 0 && n_sent > 1000, "{datagrams:?}");
        assert!(
            (15e6..25e6).contains(&datagrams.received_bits_per_second),
            "{datagrams:?}"
        );
        assert!(refused.unwrap_err().to_string().contains("refused"));
    }
}
