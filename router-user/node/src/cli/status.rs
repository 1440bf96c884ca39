//! `stream-router status`

use std::path::Path;

use clap::Args;

use super::outcome::Outcome;
use super::peers::{rows, table};
use super::reach::reach_lines;
use super::request::{ShowArguments, wait};
use super::units::{bytes, seconds};
use crate::control::{
    GatewayStatus, HostState, HostStatus, HostThing, KernelStatus, MemoryStatus, PeerList, PortMappingState,
    Status, fetch,
};

/// How much is shown.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    show: ShowArguments,
    /// Show also what peers are told of this node's addresses, how packets are captured, workers, memory, each thing of the host, and what the kernel can do
    #[arg(short, long)]
    verbose: bool,
}

/// Shows a node as a whole.
pub(super) fn status(arguments: &StatusArguments) -> Outcome {
    if arguments.show.request.json {
        return arguments.show.show::<Status>("", |_| String::new());
    }
    arguments.show.repeat(|| {
        let sockets = arguments.show.request.which.sockets()?;
        if let [only] = &sockets[..] {
            return page(only, arguments.verbose);
        }
        // One that does not answer does not hide the others.
        let pages = sockets.iter().map(|socket| {
            let page = page(socket, arguments.verbose);
            page.unwrap_or_else(|error| error.to_string())
        });
        Ok(pages
            .map(|page| page.trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n\n"))
    })
}

fn page(socket: &Path, verbose: bool) -> Result<String, Box<dyn std::error::Error>> {
    let status = wait(fetch::<Status>(socket, ""))?;
    let peers = rows(&wait(fetch::<PeerList>(socket, ""))?);
    let page = lines(&status, verbose);
    if peers.is_empty() {
        return Ok(page);
    }
    Ok(format!("{page}\n\n{}", table(&peers, verbose)))
}

/// Returns the lines of the status, all of them if `verbose`.
fn lines(status: &Status, verbose: bool) -> String {
    let device = &status.device;
    let mut lines: Vec<_> = status.name.iter().map(|name| ("name", name.clone())).collect();
    lines.extend([
        ("peer id", status.peer_id.clone()),
        ("version", status.version.clone()),
        ("uptime", seconds(status.uptime_seconds)),
        (
            "device",
            format!("{} (index {}, MTU {})", device.name, device.index, device.mtu),
        ),
        ("addresses", device.addresses.join(", ")),
        ("listen", status.listen.join(", ")),
    ]);
    if verbose || status.port_mapping.state != PortMappingState::Off {
        lines.push(("forwarded", status.port_mapping.to_string()));
    }
    lines.extend(status.port_mapping.nat.iter().map(|nat| ("NAT", nat.clone())));
    lines.extend(reach_lines(&status.reach, verbose));
    if verbose {
        lines.extend(data_path_lines(status));
    }
    let gateways = status.gateways.iter().map(gateway_line);
    lines.extend(gateways.map(|line| ("gateway", line)));
    lines.push(("host", host_line(&status.host)));
    // What is as it should be is for those who ask.
    let is_shown = |thing: &&HostThing| verbose || thing.state != HostState::Ok;
    let things = status.host.things.iter().filter(is_shown);
    lines.extend(things.map(|thing| ("", thing_line(thing))));
    if verbose {
        lines.extend(kernel_lines(&status.kernel));
    }
    let disabled = match status.disabled_peers {
        0 => String::new(),
        n => format!(", {n} more disabled"),
    };
    lines.push((
        "peers",
        format!(
            "{} of {} connected{disabled}",
            status.connected_peers, status.configured_peers
        ),
    ));
    let line = |(name, value): &(&str, String)| format!("{name:<10}{value}").trim_end().to_owned();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn data_path_lines(status: &Status) -> [(&'static str, String); 5] {
    [
        ("hook", format!("{} ({})", status.hook, status.hook_reason)),
        ("sink", format!("{} ({})", status.sink, status.sink_reason)),
        (
            "workers",
            format!(
                "{} active, {} retired, on {}",
                status.workers,
                status.retired_workers,
                status.data_threads.join(", ")
            ),
        ),
        ("memory", memory_line(&status.memory)),
        ("pins", status.pins.clone().unwrap_or_else(|| "none".to_owned())),
    ]
}

fn kernel_lines(kernel: &KernelStatus) -> impl Iterator<Item = (&'static str, String)> {
    let features = kernel.features.iter().map(|feature| {
        let available = if feature.available { "yes" } else { "no" };
        (
            "",
            format!("{:<16}  {available:<3}  {}", feature.name, feature.detail),
        )
    });
    std::iter::once(("kernel", kernel.release.clone())).chain(features)
}

/// Returns what a node may have of memory, and the sizes that it runs with.
pub(super) fn memory_line(memory: &MemoryStatus) -> String {
    let limit = match (memory.limit_bytes, &memory.limited_by) {
        (Some(limit), Some(group)) => format!("{} by {group}", bytes(limit)),
        (Some(limit), None) => format!("{} of the host", bytes(limit)),
        (None, _) => "an unknown limit".to_owned(),
    };
    format!(
        "{limit}: {} flows take {} and up to {} for what peers send of them, each worker's ring {}, \
         the peers {}",
        memory.max_flows,
        bytes(memory.table_bytes),
        bytes(memory.received_table_bytes),
        bytes(memory.ring_bytes.into()),
        bytes(memory.peers_bytes)
    )
}

fn host_line(host: &HostStatus) -> String {
    let problems = host.problems();
    let state = match problems.len() {
        0 => "as the node wants it".to_owned(),
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let failed = host
        .error
        .as_ref()
        .map_or(String::new(), |why| format!(": {why}"));
    format!(
        "{state}, looked at {:.1} s ago{failed}; {} changes by others put back",
        host.age_seconds, host.put_back
    )
}

fn thing_line(thing: &HostThing) -> String {
    let detail = thing
        .detail
        .as_ref()
        .map_or_else(String::new, |_| thing.text_with_fix());
    let name = format!("{} {}", thing.kind, thing.name);
    format!(
        "{:<26}  {:<8}  {detail}",
        name.trim_end(),
        thing.state.to_string()
    )
    .trim_end()
    .to_owned()
}

fn gateway_line(gateway: &GatewayStatus) -> String {
    let because = |reason: &Option<String>| {
        let reason = reason.as_deref();
        reason.map_or_else(String::new, |reason| format!(" ({reason})"))
    };
    let (mode, sink) = (because(&gateway.reason), because(&gateway.sink_reason));
    format!(
        "{}, {} mode{mode}, {}{sink}",
        gateway.interface, gateway.mode, gateway.sink
    )
}
