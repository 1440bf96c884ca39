//! What one comparison has seen and done, and how it is shown.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use ipnet::IpNet;

use super::compare::Difference;
use super::report::{SeenDevice, row};
use super::thing::{Level, Thing};
use super::wanted::Wanted;
use crate::control::{HostState, HostThing};
use crate::device::{Route, SeenRule, Sysctl};

/// Changed things that a warning names one by one.
const MAX_NAMED: usize = 8;

/// What one comparison has seen and done so far.
pub(super) struct Pass {
    /// Whether the routes are read.
    pub(super) looks_at_routes: bool,
    /// The lowest level at which something was changed.
    pub(super) lowest: Level,
    pub(super) changed: Vec<(Thing, String)>,
    pub(super) given_up: Vec<String>,
    /// What was not changed by itself, but went with something else.
    pub(super) followed: BTreeSet<Thing>,
    pub(super) n_followed: usize,
    /// What the kernel has refused to put back.
    pub(super) refused: BTreeSet<Thing>,
    pub(super) again: Option<Duration>,
    /// The device as it was seen last.
    pub(super) device: Option<SeenDevice>,
    /// The policy rules as they were seen last.
    pub(super) rules: Vec<SeenRule>,
    /// Settings that have to be on.
    pub(super) settings: Vec<Sysctl>,
    /// The node has a table of nftables.
    pub(super) has_nft: bool,
    /// What has become the host's own.
    pub(super) accepted: Vec<String>,
}

impl Pass {
    /// Makes one that has seen nothing yet; `went_down` says that the device was down in between.
    pub(super) fn new(went_down: bool) -> Self {
        Self {
            looks_at_routes: true,
            lowest: if went_down { Level::Device } else { Level::Alone },
            changed: Vec::new(),
            given_up: Vec::new(),
            followed: BTreeSet::new(),
            n_followed: 0,
            refused: BTreeSet::new(),
            again: None,
            device: None,
            rules: Vec::new(),
            settings: Vec::new(),
            has_nft: false,
            accepted: Vec::new(),
        }
    }
}

/// Returns a row for each thing that is as it is to be, and one for all routes and one for all ways of which that is so.
pub(super) fn right_rows(wanted: &Wanted, wrong: &HashSet<&Thing>, pass: &Pass) -> Vec<HostThing> {
    let mut things = vec![Thing::Name, Thing::Controller, Thing::Up, Thing::Mtu];
    if wanted.device.addresses.iter().any(|net| net.addr().is_ipv6()) {
        things.push(Thing::Ipv6);
        things.push(Thing::Autoconfiguration);
    }
    things.extend(wanted.device.addresses.iter().map(|net| Thing::Address(*net)));
    things.extend(wanted.rules.iter().map(|rule| Thing::Rule(*rule)));
    if wanted.hook.is_some() {
        things.push(Thing::Hook);
        things.push(Thing::Ingress);
    }
    if pass.has_nft {
        things.push(Thing::Nft);
    }
    things.extend(pass.settings.iter().cloned().map(Thing::Setting));
    things.extend(wanted.gateways.iter().cloned().map(Thing::Gateway));
    if wanted.pins {
        things.push(Thing::Pins);
    }
    things.retain(|thing| !wrong.contains(thing));
    let mut rows: Vec<HostThing> = things.iter().map(|thing| row(thing, HostState::Ok)).collect();
    let counted = |kind: &str, n_right: usize, n: usize| HostThing {
        kind: kind.to_owned(),
        name: format!("{n_right} of {n}"),
        state: HostState::Ok,
        detail: None,
        fix: None,
    };
    let routes = wanted.all_routes();
    let is_right = |route: &&Route| !wrong.contains(&Thing::Route(**route));
    rows.push(counted(
        "routes",
        routes.iter().filter(is_right).count(),
        routes.len(),
    ));
    let networks = &wanted.networks;
    let is_right = |net: &&IpNet| !wrong.contains(&Thing::Way(**net));
    rows.push(counted(
        "ways",
        networks.keys().filter(is_right).count(),
        networks.len(),
    ));
    rows
}

/// Returns what is the matter.
pub(super) fn text(difference: &Difference) -> String {
    format!("{} {}", difference.thing, difference.seen)
}

/// Returns the first of what was changed, and how much more there is.
pub(super) fn list(changed: &[(Thing, String)]) -> String {
    let named: Vec<&str> = changed
        .iter()
        .take(MAX_NAMED)
        .map(|(_, what)| what.as_str())
        .collect();
    let more = match changed.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    named.join("; ") + &more
}
