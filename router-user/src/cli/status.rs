//! `stream-router status`

use std::fmt::Write;
use std::path::Path;

use super::{Outcome, print};
use crate::control::{PeerState, PeerStatus, Status, fetch_status};

/// Prints the status of the node at `socket`.
pub(super) fn status(socket: &Path, json: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(fetch_status(socket))?;
    if json {
        print(serde_json::to_string_pretty(&status)?)
    } else {
        print(table(&status)?.trim_end())
    }
}

fn table(status: &Status) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let device = &status.device;
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<10}{value}");
    line("version", &status.version)?;
    line("uptime", &format!("{:.0} s", status.uptime_seconds))?;
    line("peer id", &status.peer_id)?;
    line(
        "device",
        &format!("{} (index {}, MTU {})", device.name, device.index, device.mtu),
    )?;
    line("addresses", &device.addresses.join(", "))?;
    line("listen", &status.listen.join(", "))?;
    line("hook", &status.hook)?;
    line("sink", &status.sink)?;
    line(
        "workers",
        &format!("{} active, {} retired", status.workers, status.retired_workers),
    )?;
    line("pins", status.pins.as_deref().unwrap_or("none"))?;
    for gateway in &status.gateways {
        let because = |reason: &Option<String>| {
            let reason = reason.as_deref();
            reason.map_or_else(String::new, |reason| format!(" ({reason})"))
        };
        let (mode, sink) = (because(&gateway.reason), because(&gateway.sink_reason));
        line(
            "gateway",
            &format!(
                "{}, {} mode{mode}, {}{sink}",
                gateway.interface, gateway.mode, gateway.sink
            ),
        )?;
    }
    for peer in &status.peers {
        write_peer(&mut text, peer)?;
    }
    writeln!(text, "\ncounters")?;
    let width = status.counters.keys().map(String::len).max().unwrap_or(0);
    for (name, n) in status.counters.iter().filter(|(_, n)| **n > 0) {
        writeln!(text, "  {name:<width$}  {n}")?;
    }
    Ok(text)
}

fn write_peer(text: &mut String, peer: &PeerStatus) -> std::fmt::Result {
    let state = match peer.state {
        PeerState::Connected => "connected",
        PeerState::Connecting => "connecting",
        PeerState::Disconnected => "disconnected, waits for the peer to dial",
    };
    writeln!(text, "\npeer {}", peer.id)?;
    writeln!(text, "  state     {state}")?;
    if let Some(address) = &peer.address {
        writeln!(text, "  address   {address}")?;
    }
    if let Some(rtt_ms) = peer.rtt_ms {
        writeln!(text, "  rtt       {rtt_ms:.2} ms")?;
    }
    writeln!(text, "  allowed   {}", peer.allowed_ips.join(", "))?;
    writeln!(text, "  streams   {}", peer.streams)?;
    writeln!(
        text,
        "  sent      {} frames, {} bytes",
        peer.tx_packets, peer.tx_bytes
    )?;
    writeln!(
        text,
        "  received  {} frames, {} bytes",
        peer.rx_packets, peer.rx_bytes
    )
}
