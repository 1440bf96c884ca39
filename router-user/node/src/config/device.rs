//! The `[device]` section.

use ipnet::IpNet;

use super::address::{DEVICE_ALLOWED, device_address};
use super::device_name::{NAME_ALLOWED, is_device_name};
use super::instance::NodeDefaults;
use super::problem::{Located, Problems};
use super::reader::Table;

/// MTU of the device unless told otherwise: a full frame fits the usual path of 1500 bytes in one segment.
const DEFAULT_MTU: u32 = 1420;

/// Smallest MTU: what every IPv4 host can reassemble (RFC 791).
const MIN_MTU: u32 = 576;

/// Smallest MTU that carries IPv6 (RFC 8200); the kernel turns IPv6 off on a device below it.
pub(super) const MIN_MTU_V6: u32 = 1280;

/// Largest MTU: above it a super-packet with its last segment passes 65,535 bytes, more than a frame holds.
pub(super) const MAX_MTU: u32 = 32_000;

/// What becomes of packets to peers' networks once the node was stopped on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// They go nowhere until the node is started again, or `purge` removes what it left.
    Block,
    /// They go where the host's other routes lead.
    Remove,
}

/// The TUN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSection {
    name: String,
    addresses: Vec<IpNet>,
    mtu: u32,
    clamp_mss: bool,
    on_stop: Option<OnStop>,
}

impl DeviceSection {
    /// Returns the name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the addresses of the interface, at least one, each with the length of its on-link prefix.
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// Returns the MTU in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Returns whether the segment size that TCP connections through the device offer is lowered to what it carries.
    pub fn clamp_mss(&self) -> bool {
        self.clamp_mss
    }

    /// Returns the MTU to which segment sizes are lowered, or 0.
    pub fn clamp_mtu(&self) -> u32 {
        if self.clamp_mss { self.mtu } else { 0 }
    }

    /// Returns what becomes of packets to peers' networks once the node was stopped on purpose, if the file says so.
    pub fn on_stop(&self) -> Option<OnStop> {
        self.on_stop
    }

    /// Returns `self` with what `new` says of a stop.
    pub(super) fn with_stop_of(&self, new: &Self) -> Self {
        Self {
            on_stop: new.on_stop,
            ..self.clone()
        }
    }
}

/// The section as read, with the places that later checks name.
pub(super) struct RawDevice {
    name: String,
    pub(super) addresses: Vec<Located<IpNet>>,
    pub(super) mtu: Located<u32>,
    clamp_mss: bool,
    on_stop: Option<OnStop>,
}

impl RawDevice {
    pub(super) fn read(mut table: Table<'_>, defaults: &NodeDefaults, problems: &mut Problems) -> Self {
        let name = name(&mut table, &defaults.device, problems);
        let addresses = addresses(&mut table, problems);
        let mtu = table
            .integer("mtu", MIN_MTU..=MAX_MTU, problems)
            .unwrap_or_else(|| Located {
                place: table.absent("mtu"),
                value: DEFAULT_MTU,
            });
        let clamp_mss = table.boolean("clamp_mss", problems).unwrap_or(true);
        let on_stop = on_stop(&mut table, problems);
        table.finish(problems);
        Self {
            name,
            addresses,
            mtu,
            clamp_mss,
            on_stop,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn validated(self) -> DeviceSection {
        let addresses = self.addresses.into_iter().map(|address| address.value).collect();
        DeviceSection {
            name: self.name,
            addresses,
            mtu: self.mtu.value,
            clamp_mss: self.clamp_mss,
            on_stop: self.on_stop,
        }
    }
}

fn on_stop(table: &mut Table<'_>, problems: &mut Problems) -> Option<OnStop> {
    let values = [("block", OnStop::Block), ("remove", OnStop::Remove)];
    let words = ("is neither", "\"block\" or \"remove\"");
    table.choice("on_stop", &values, words, problems)
}

fn name(table: &mut Table<'_>, default: &str, problems: &mut Problems) -> String {
    let Some(Located { place, value }) = table.string("name", NAME_ALLOWED, problems) else {
        return default.to_owned();
    };
    if !is_device_name(&value) {
        problems.add(&place, format!("{value:?} cannot name the device"), NAME_ALLOWED);
    }
    value
}

fn addresses(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Located<IpNet>> {
    let listed = table.some_strings("addresses", DEVICE_ALLOWED, problems);
    let mut addresses: Vec<Located<IpNet>> = Vec::with_capacity(listed.len());
    for Located { place, value } in listed {
        match device_address(&value) {
            Ok(net) if addresses.iter().any(|earlier| earlier.value.addr() == net.addr()) => {
                problems.add(
                    &place,
                    format!("{} is listed twice", net.addr()),
                    "each address once",
                );
            }
            Ok(net) => addresses.push(Located { place, value: net }),
            Err(wrong) => problems.add(&place, wrong, DEVICE_ALLOWED),
        }
    }
    addresses
}
