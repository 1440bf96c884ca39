//! `stream-router status`

use super::units::{bytes, seconds};
use crate::control::{GatewayStatus, HostStatus, HostThing, MemoryStatus, Status};

/// Returns the lines of the status.
pub(super) fn lines(status: &Status) -> String {
    let device = &status.device;
    let kernel = &status.kernel;
    let mut lines = vec![
        ("version", status.version.clone()),
        ("uptime", seconds(status.uptime_seconds)),
        ("peer id", status.peer_id.clone()),
        (
            "device",
            format!("{} (index {}, MTU {})", device.name, device.index, device.mtu),
        ),
        ("addresses", device.addresses.join(", ")),
        ("listen", status.listen.join(", ")),
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
        (
            "peers",
            format!(
                "{} of {} connected",
                status.connected_peers, status.configured_peers
            ),
        ),
        ("memory", memory_line(&status.memory)),
        ("pins", status.pins.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    lines.extend(
        status
            .gateways
            .iter()
            .map(|gateway| ("gateway", gateway_line(gateway))),
    );
    lines.push(("host", host_line(&status.host)));
    lines.extend(status.host.things.iter().map(|thing| ("", thing_line(thing))));
    lines.push(("kernel", kernel.release.clone()));
    lines.extend(kernel.features.iter().map(|feature| {
        let available = if feature.available { "yes" } else { "no" };
        (
            "",
            format!("{:<16}  {available:<3}  {}", feature.name, feature.detail),
        )
    }));
    let line = |(name, value): &(&str, String)| format!("{name:<10}{value}").trim_end().to_owned();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns what a node may have of memory, and the sizes that it runs with.
pub(super) fn memory_line(memory: &MemoryStatus) -> String {
    let limit = match (memory.limit_bytes, &memory.limited_by) {
        (Some(limit), Some(group)) => format!("{} by {group}", bytes(limit)),
        (Some(limit), None) => format!("{} of the host", bytes(limit)),
        (None, _) => "an unknown limit".to_owned(),
    };
    format!(
        "{limit}: {} flows take {}, and each worker's ring {}",
        memory.max_flows,
        bytes(memory.table_bytes),
        bytes(memory.ring_bytes.into())
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
