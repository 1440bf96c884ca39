//! Measures a network behind a node by every way that its packets can take to the tunnel.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cpu::busy_seconds;
use super::datagrams::Datagrams;
use super::stats::Summary;
use crate::build;
use xtask::lab::probe::{IperfServer, iperf};
use xtask::lab::process::text;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, link};

const LIMIT: Duration = Duration::from_secs(10);
const PAYLOAD_BYTES: usize = 64;
/// What a router between networks has at least.
const FIREWALL: &str = "table inet filter { chain forward { type filter hook forward priority 0; policy drop; \
                        ct state established,related accept; iifname lan0 accept; }; }";

/// A way from the network to the tunnel.
struct Way {
    name: &'static str,
    /// Hook and sink of the gateway, and the mode that its status shows; without, the host forwards.
    gateway: Option<(&'static str, &'static str, &'static str)>,
    has_firewall: bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "host",
        gateway: None,
        has_firewall: false,
    },
    Way {
        name: "host, firewall",
        gateway: None,
        has_firewall: true,
    },
    Way {
        name: "TC",
        gateway: Some(("tc", "ring", "tc")),
        has_firewall: false,
    },
    Way {
        name: "XDP, ring",
        gateway: Some(("xdp", "ring", "native")),
        has_firewall: false,
    },
    Way {
        name: "XDP, AF_XDP",
        gateway: Some(("xdp", "af_xdp", "native")),
        has_firewall: false,
    },
];

const N_FIGURES: usize = 5;
const FIGURES: [&str; N_FIGURES] = [
    "TCP to the peer, Gbit/s",
    "CPU of it, s/GiB",
    "TCP from the peer, Gbit/s",
    "CPU of it, s/GiB",
    "UDP of 64 B, 1000/s",
];

/// A gain over the host's way that is wanted: figure, way, and how many times the host's.
const GOALS: [(usize, usize, f64); 3] = [(0, 2, 1.2), (2, 2, 1.2), (4, 3, 1.5)];

/// Prints throughput and CPU of every way. They take turns, and all of them stand side by side the whole time.
pub(super) fn run(duration: Duration, repeats: u32) -> Result<()> {
    let binary = build::node(&build::Profile::release())?;
    let sites: Vec<Site> = WAYS
        .iter()
        .map(|way| Site::start(&binary, way).with_context(|| way.name))
        .collect::<Result<_>>()?;
    let mut measured = vec![vec![Vec::new(); N_FIGURES]; WAYS.len()];
    for _ in 0..repeats {
        for (site, of_site) in sites.iter().zip(&mut measured) {
            for (values, value) in of_site.iter_mut().zip(site.measure(duration)?) {
                values.push(value);
            }
        }
    }
    let medians: Vec<Vec<f64>> = measured
        .iter()
        .map(|of_site| of_site.iter().filter_map(|values| Summary::of(values)).collect())
        .map(|summaries: Vec<Summary>| summaries.iter().map(|summary| summary.median).collect())
        .collect();
    print(&medians, repeats)
}

fn print(medians: &[Vec<f64>], repeats: u32) -> Result<()> {
    println!("\na network behind a gateway; medians of {repeats}");
    print!("| figure |");
    for way in &WAYS {
        print!(" {} |", way.name);
    }
    println!("\n|---{}|", "|---".repeat(WAYS.len()));
    let value = |way: usize, figure: usize| {
        let found = medians.get(way).and_then(|all| all.get(figure)).copied();
        found.context("nothing was measured")
    };
    for (figure, name) in FIGURES.iter().enumerate() {
        print!("| {name} |");
        for way in 0..WAYS.len() {
            print!(" {:.2} |", value(way, figure)?);
        }
        println!();
    }
    for (figure, way, wanted) in GOALS {
        let gain = value(way, figure)? / value(0, figure)?;
        let verdict = if gain >= wanted { "reached" } else { "missed" };
        println!(
            "{}, {}: {gain:.2} x the host's way; the goal of {wanted} is {verdict}",
            FIGURES[figure], WAYS[way].name
        );
    }
    Ok(())
}

/// A pair of nodes, and a host in a network behind the first.
struct Site {
    pair: Pair,
    host: Namespace,
}

impl Site {
    fn start(binary: &Path, way: &Way) -> Result<Self> {
        let mut pair = Pair::prepare(binary, &PairPlan::unique(), ScratchDir::unique("gateway")?)?;
        let host = Namespace::unique("lan")?;
        let router = &pair.a.host;
        link(
            (&host, "eth0", &["192.168.77.2/24"]),
            (router, "lan0", &["192.168.77.1/24"]),
        )?;
        host.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
        router.enter(|| Ok(fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?))?;
        if way.has_firewall {
            text(router.command("nft").arg(FIREWALL), LIMIT)?;
        }
        if let Some((hook, sink, _)) = way.gateway {
            pair.a.config.sections =
                format!("\n[[gateway]]\ninterface = \"lan0\"\nhook = \"{hook}\"\nsink = \"{sink}\"\n");
        }
        pair.a.node.configure(&pair.a.config)?;
        let behind = pair.b.config.peers.first_mut().context("the other is a peer")?;
        behind.allowed_ips.push("192.168.77.0/24".to_owned());
        pair.b.node.configure(&pair.b.config)?;
        pair.start_nodes()?;
        let shown = pair.a.node.status()?.gateways.pop().map(|gateway| gateway.mode);
        let wanted = way.gateway.map(|(_, _, mode)| mode);
        ensure!(shown.as_deref() == wanted, "captured by {shown:?}");
        Ok(Self { pair, host })
    }

    fn measure(&self, duration: Duration) -> Result<[f64; N_FIGURES]> {
        let to = self.pair.b.v4;
        let (forth, forth_cpu) = self.tcp(to, duration, &[])?;
        let (back, back_cpu) = self.tcp(to, duration, &["--reverse"])?;
        let datagrams = Datagrams {
            hosts: [&self.host, &self.pair.b.host],
            to,
            payload_bytes: PAYLOAD_BYTES,
            duration,
        };
        let best_pps = datagrams.best()?.offered.received_pps;
        Ok([forth, forth_cpu, back, back_cpu, best_pps * 1e-3])
    }

    /// Returns Gbit/s, and seconds of CPU of the whole machine for a GiB.
    fn tcp(&self, to: IpAddr, duration: Duration, args: &[&str]) -> Result<(f64, f64)> {
        let _server = IperfServer::start(&self.pair.b.host)?;
        let before = busy_seconds()?;
        let report = iperf(&self.host, to, duration, args)?;
        let busy = busy_seconds()? - before;
        let bits = report.received_bits_per_second;
        let gib = bits / 8.0 * duration.as_secs_f64() / f64::from(1 << 30);
        Ok((bits * 1e-9, busy / gib))
    }
}
