//! Runs the ready network until Ctrl-C, or a real node on this host.

use std::io::{IsTerminal, Write, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::ready::{DEVICES, HOSTS, ReadyNetwork};
use xtask::lab::Status;

const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Counters of packets that went nowhere.
const DROPS: &[&str] = &[
    "ring_full",
    "peer_pressure",
    "tx_no_route",
    "tx_peer_down",
    "tx_queue_full",
    "tx_aged",
    "tx_stream_lost",
    "rx_source_not_allowed",
    "rx_malformed_packet",
    "rx_bad_offload_header",
    "rx_device_refused",
];

/// Runs the ready network until Ctrl-C.
///
/// # Errors
/// When it cannot be made, when a node fails, or when something is left at the end.
pub(crate) fn run() -> Result<()> {
    let (interrupt, interrupted) = sync_channel(1);
    ctrlc::set_handler(move || {
        // A full channel holds an interrupt already.
        let _ = interrupt.try_send(());
    })
    .context("cannot handle Ctrl-C")?;
    let mut network = ReadyNetwork::start()?;
    println!("{}", what_to_try(&network));
    let mut last = network.pair.a.node.status()?;
    while let Err(RecvTimeoutError::Timeout) = interrupted.recv_timeout(SHOWN_EVERY) {
        match show_progress(&mut network, &last) {
            Ok(now) => last = now,
            Err(_) if interrupted.try_recv().is_ok() => break,
            Err(error) => return Err(error),
        }
    }
    println!("\nstopping");
    let left = network.stop()?;
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    Ok(())
}

/// Builds the node and becomes `stream-router run` with these arguments.
///
/// # Errors
/// When the build fails or the node cannot be started; on success it does not return.
pub(crate) fn run_node(args: &[String]) -> Result<ExitCode> {
    let binary = build::node(&build::Profile::release())?;
    let error = Command::new(&binary).arg("run").args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

fn show_progress(network: &mut ReadyNetwork, last: &Status) -> Result<Status> {
    network.pair.a.node.ensure_alive()?;
    network.pair.b.node.ensure_alive()?;
    let now = network.pair.a.node.status()?;
    let line = progress(last, &now);
    if stdout().is_terminal() {
        print!("\r\x1b[K{line}");
        stdout().flush()?;
    } else {
        println!("{line}");
    }
    Ok(now)
}

fn progress(last: &Status, now: &Status) -> String {
    let seconds = (now.uptime_seconds - last.uptime_seconds).max(0.001);
    let (Some(before), Some(peer)) = (last.peers.first(), now.peers.first()) else {
        return "no peer".to_owned();
    };
    let direction = |bytes: u64, packets: u64| {
        let per_second = |count: u64| count as f64 / seconds;
        format!(
            "{:.2} Gbit/s {:.1} kpps",
            per_second(bytes) * 8e-9,
            per_second(packets) * 1e-3
        )
    };
    let drops: u64 = DROPS.iter().filter_map(|name| now.counters.get(*name)).sum();
    let rtt = peer.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.2} ms"));
    format!(
        "{:.0} s, {} | a to b {} | b to a {} | dropped {drops} | rtt {rtt}",
        now.uptime_seconds,
        peer.state,
        direction(peer.tx_bytes - before.tx_bytes, peer.tx_frames - before.tx_frames),
        direction(peer.rx_bytes - before.rx_bytes, peer.rx_frames - before.rx_frames),
    )
}

fn what_to_try(network: &ReadyNetwork) -> String {
    let [a, b] = HOSTS;
    let [device, _] = DEVICES;
    let socket = network.pair.a.node.socket();
    format!(
        "\nTwo nodes are connected: 10.42.0.1, fd42::1 in {a} and 10.42.0.2, fd42::2 in {b}. Try, as root:\n\n  \
         ip netns exec {a} ping 10.42.0.2\n  \
         ip netns exec {a} tracepath -n fd42::2\n  \
         ip netns exec {b} iperf3 -s -D -1; ip netns exec {a} iperf3 -c 10.42.0.2\n  \
         bpftool map show; bpftool prog show\n  \
         ls /sys/fs/bpf/stream-router/{device}; bpftool map dump pinned /sys/fs/bpf/stream-router/{device}/CONNECTIONS\n  \
         {} status --socket {}\n\n\
         Configurations and logs are in {}. Ctrl-C stops the nodes and removes every trace.\n",
        network.binary.display(),
        socket.display(),
        network.pair.directory().display(),
    )
}
