//! The `[[transport.uplink]]` sections.

use std::net::IpAddr;

use super::gateway::names_an_interface;
use super::problem::{Place, Problems};
use super::reader::Table;
use stream_router::config::MAX_STREAMS_PER_PEER;
use stream_router::p2p::{MAX_UPLINKS, UplinkBy, UplinkConfig};

const DEVICE_ALLOWED: &str =
    "the name of a network interface: 1 to 15 characters without space, '/', ':' and '%'";

const SOURCE_ALLOWED: &str = "an address of this host, such as \"192.0.2.1\" or \"2001:db8::1\"";

const ONE_OF: &str = "device = \"NAME\" or source = \"ADDRESS\"";

/// The largest weight: shares are as fine as the number of streams to a peer.
const MAX_WEIGHT: u32 = MAX_STREAMS_PER_PEER;

const MAX_COST: u32 = 1000;

/// A metered uplink costs more than any that is not.
const METERED: u32 = MAX_COST + 1;

/// Says whether an uplink was said to be metered.
pub fn is_metered(uplink: &UplinkConfig) -> bool {
    uplink.cost >= METERED
}

/// Reads the uplinks, and checks them against each other.
pub(super) fn read(tables: Vec<Table<'_>>, problems: &mut Problems) -> Vec<UplinkConfig> {
    if let Some(first_too_many) = tables.get(MAX_UPLINKS) {
        let wrong = format!("there are {} uplinks", tables.len());
        problems.add(
            first_too_many.place(),
            wrong,
            format!("at most {MAX_UPLINKS} uplinks"),
        );
    }
    let mut seen: Vec<(Place, UplinkConfig)> = Vec::new();
    for table in tables {
        let Some((place, uplink)) = read_one(table, problems) else {
            continue;
        };
        if let Some((earlier, _)) = seen.iter().find(|(_, other)| other.by == uplink.by) {
            let wrong = format!("{} is also {}", uplink.by, earlier.seen_from(&place));
            problems.add(&place, wrong, "one section per uplink");
        }
        seen.push((place, uplink));
    }
    seen.into_iter().map(|(_, uplink)| uplink).collect()
}

fn read_one(mut table: Table<'_>, problems: &mut Problems) -> Option<(Place, UplinkConfig)> {
    let section = table.place().clone();
    let device = table.string("device", DEVICE_ALLOWED, problems);
    let source = table.string("source", SOURCE_ALLOWED, problems);
    let weight = table.integer("weight", 1..=MAX_WEIGHT, problems);
    let cost = table.integer("cost", 0..=MAX_COST, problems);
    let metered = table.boolean("metered", problems).unwrap_or_default();
    table.finish(problems);
    let (place, by) = match (device, source) {
        (Some(device), None) if names_an_interface(&device.value) => {
            (device.place, UplinkBy::Device(device.value))
        }
        (Some(device), None) => {
            let wrong = format!("{:?} cannot name an interface", device.value);
            problems.add(&device.place, wrong, DEVICE_ALLOWED);
            return None;
        }
        (None, Some(source)) => match source.value.parse::<IpAddr>().ok().filter(is_own) {
            Some(ip) => (source.place, UplinkBy::Source(ip)),
            None => {
                let wrong = format!("{:?} is no address that connections leave from", source.value);
                problems.add(&source.place, wrong, SOURCE_ALLOWED);
                return None;
            }
        },
        (Some(_), Some(both)) => {
            problems.add(&both.place, "the uplink has a device already", ONE_OF);
            return None;
        }
        (None, None) => {
            problems.add(&section, "nothing says which uplink it is", ONE_OF);
            return None;
        }
    };
    let cost = cost.map_or(0, |cost| cost.value) + if metered { METERED } else { 0 };
    let weight = weight.map_or(1, |weight| weight.value);
    Some((place, UplinkConfig { by, weight, cost }))
}

fn is_own(ip: &IpAddr) -> bool {
    let is_near = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some());
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_near)
}
