//! Sends real traffic over the ready network and judges the result.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ready::{MTU, ReadyNetwork};
use xtask::lab::probe::{IperfServer, PingPlan, iperf, path_mtu};
use xtask::lab::{Node, Pair};

const IDLE: Duration = Duration::from_secs(10);
const TCP: Duration = Duration::from_secs(5);
const UDP: Duration = Duration::from_secs(3);
const UDP_RATE: &str = "200M";
/// Interval of pings, short enough that the CPUs do not fall into a sleep whose end takes longer than the packet's way.
const PING_INTERVAL: Duration = Duration::from_millis(2);
const UNDERLAY_B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Runs the ready network, sends traffic and prints the figures; failure means wrong behaviour, not low speed.
///
/// # Errors
/// When the network cannot be made or a tool cannot run.
pub(crate) fn run() -> Result<ExitCode> {
    let network = ReadyNetwork::start()?;
    let mut report = SmokeReport::default();
    measure(&network.pair, &mut report)?;
    let left = network.stop()?;
    report.row(
        "left behind after the stop",
        if left.is_empty() {
            "nothing".into()
        } else {
            left.join(", ")
        },
    );
    report.expect(left.is_empty(), "something was left behind");
    println!("{}", report.table());
    for wrong in &report.wrong {
        println!("wrong: {wrong}");
    }
    Ok(if report.wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Debug, Default)]
struct SmokeReport {
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

impl SmokeReport {
    fn row(&mut self, figure: &str, value: String) {
        self.rows.push((figure.to_owned(), value));
    }

    fn expect(&mut self, holds: bool, wrong: &str) {
        if !holds {
            self.wrong.push(wrong.to_owned());
        }
    }

    fn table(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|(figure, _)| figure.len())
            .max()
            .unwrap_or(0);
        let lines = self
            .rows
            .iter()
            .map(|(figure, value)| format!("  {figure:width$}  {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn measure(pair: &Pair, report: &mut SmokeReport) -> Result<()> {
    let cpu_before = cpu_time(&pair.a.node)?;
    thread::sleep(IDLE);
    let cpu = cpu_time(&pair.a.node)?.saturating_sub(cpu_before);
    report.row(
        "idle node, CPU of one core",
        format!("{:.2} %", 100.0 * cpu.as_secs_f64() / IDLE.as_secs_f64()),
    );
    report.row(
        "idle node, resident memory",
        format!("{:.1} MiB", resident_mib(&pair.a.node)?),
    );
    let bare = ("the bare underlay", UNDERLAY_B, None);
    for (name, to, mtu) in [
        bare,
        ("IPv4", pair.b.v4, Some(MTU)),
        ("IPv6", pair.b.v6, Some(MTU)),
    ] {
        let pings = PingPlan {
            count: 1000,
            interval: PING_INTERVAL,
            ..PingPlan::new(to)
        }
        .run(&pair.a.host)?;
        let percentile = |percent| pings.percentile_ms(percent).unwrap_or(f64::NAN);
        report.row(
            &format!("ping over {name}, every {PING_INTERVAL:?}, p50 and p99"),
            format!("{:.3} ms and {:.3} ms", percentile(50), percentile(99)),
        );
        report.expect(
            pings.n_lost() == 0,
            &format!("{} pings over {name} were lost", pings.n_lost()),
        );
        let Some(mtu) = mtu else { continue };
        let found = path_mtu(&pair.a.host, to)?;
        report.row(&format!("tracepath {name}, MTU"), format!("{found} bytes"));
        report.expect(found == mtu, &format!("the path MTU over {name} is not {mtu}"));
    }
    let server = IperfServer::start(&pair.b.host)?;
    for (name, args) in [("a to b", &[][..]), ("b to a", &["--reverse"])] {
        let tcp = iperf(&pair.a.host, pair.b.v4, TCP, args)?;
        report.row(
            &format!("TCP one flow, {name}"),
            format!(
                "{:.2} Gbit/s, {} retransmits",
                tcp.received_bits_per_second * 1e-9,
                tcp.n_retransmits.unwrap_or(0)
            ),
        );
        report.expect(
            tcp.received_bits_per_second > 1e6,
            &format!("TCP {name} has no throughput"),
        );
    }
    let udp = iperf(
        &pair.a.host,
        pair.b.v4,
        UDP,
        &["--udp", "--length=1200", "--bitrate", UDP_RATE],
    )?;
    let (n_lost, n_sent) = udp.lost.context("iperf3 counted no datagrams")?;
    report.row(
        &format!("UDP 1200 bytes at {UDP_RATE}bit/s"),
        format!(
            "{:.1} Mbit/s, {n_lost} of {n_sent} lost",
            udp.received_bits_per_second * 1e-6
        ),
    );
    report.expect(
        n_sent > 0 && n_lost * 100 <= n_sent,
        "more than 1 % of the datagrams were lost",
    );
    drop(server);
    report.row(
        "node after load, resident memory",
        format!("{:.1} MiB", resident_mib(&pair.a.node)?),
    );
    Ok(())
}

/// Returns the CPU time of all threads of a node.
fn cpu_time(node: &Node) -> Result<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir(proc_path(node, "task")?)? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = text.split_whitespace().next().context("schedstat is empty")?;
        nanos += first.parse::<u64>().context("schedstat holds no number")?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn resident_mib(node: &Node) -> Result<f64> {
    let status = fs::read_to_string(proc_path(node, "status")?)?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no resident size")?;
    let kib: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("the resident size is no number")?;
    Ok(kib / 1024.0)
}

fn proc_path(node: &Node, file: &str) -> Result<String> {
    let pid = node.process_id().context("the node does not run")?;
    Ok(format!("/proc/{pid}/{file}"))
}
