//! Says in what the kernel's state differs from the wanted one.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::found::{Found, FoundGateway};
use super::thing::Thing;
use super::wanted::Wanted;
use crate::device::{AddressState, NftRules, Route, RouteTarget, Rule, SeenRule, Sysctl, TcFilter};
use crate::kernel::GatewayInterface;

/// A thing that is not as the node wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Difference {
    /// What it is about.
    pub(in crate::node) thing: Thing,
    /// What is the matter, to follow the name of the thing.
    pub(in crate::node) seen: String,
    /// What puts it right.
    pub(in crate::node) remedy: Remedy,
    /// The command by which a person puts it right, where it is not to have the node compare anew.
    pub(in crate::node) fix: Option<String>,
}

/// What puts a thing right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum Remedy {
    /// Give the device its name.
    Rename,
    /// Take the device out of what it was put into.
    Release,
    /// Bring the device up.
    SetUp,
    /// Set the MTU of the device.
    SetMtu,
    /// Turn IPv6 of the device on.
    EnableIpv6,
    /// Turn autoconfiguration of IPv6 off, and take these addresses off that came of it.
    DisableAutoconfiguration(Vec<IpNet>),
    /// Take some addresses off the device, then give it others, in order.
    Addresses {
        /// What is taken off.
        remove: Vec<IpNet>,
        /// What it is given.
        add: Vec<IpNet>,
    },
    /// Add a route.
    Route(Route),
    /// Add a policy rule.
    Rule(Rule),
    /// Attach to the egress of the device, before all filters; the filters that are the node's go.
    Hook(Vec<TcFilter>),
    /// Make the node's table of nftables.
    Nft(NftRules),
    /// Turn a setting on.
    Setting(Sysctl),
    /// Attach to a gateway's interface, or tell the program of it; whether the program is attached there already.
    Gateway {
        /// The interface.
        interface: GatewayInterface,
        /// The program is attached to it.
        is_attached: bool,
    },
    /// Pin programs and maps again.
    Pins,
    /// Nothing until something comes that is not the node's to make.
    Wait,
    /// Nothing that the node may do: it is another's.
    None,
}

/// Returns in what `found` differs from `wanted`: first what the rest depends on.
pub(in crate::node) fn differences(wanted: &Wanted, found: &Found) -> Vec<Difference> {
    let mut all = Vec::new();
    device(wanted, found, &mut all);
    addresses(wanted, found, &mut all);
    routes(wanted, found, &mut all);
    rules(wanted, found, &mut all);
    hook(wanted, found, &mut all);
    ingress(wanted, found, &mut all);
    nft(found, &mut all);
    settings(found, &mut all);
    gateways(wanted, found, &mut all);
    if wanted.pins && !found.missing_pins.is_empty() {
        let seen = format!("is incomplete: {}", found.missing_pins.join(", "));
        all.push(difference(Thing::Pins, seen, Remedy::Pins));
    }
    all
}

fn device(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    let (device, link) = (&wanted.device, &found.link);
    if link.name != device.name {
        all.push(difference(
            Thing::Name,
            format!("is {} instead of {}", link.name, device.name),
            Remedy::Rename,
        ));
    }
    if let Some(index) = link.controller {
        let seen = format!("is lost to the interface with index {index}, which it was put into");
        all.push(difference(Thing::Controller, seen, Remedy::Release));
    }
    if link.mtu != device.mtu {
        let seen = format!("is {} instead of {}", link.mtu, device.mtu);
        all.push(difference(Thing::Mtu, seen, Remedy::SetMtu));
    }
    if !link.up {
        all.push(difference(Thing::Up, "is down", Remedy::SetUp));
    }
    if found.ipv6_disabled == Some(true) && device.addresses.iter().any(|net| net.addr().is_ipv6()) {
        let seen = format!("is off (sysctl net.ipv6.conf.{}.disable_ipv6)", link.name);
        all.push(difference(Thing::Ipv6, seen, Remedy::EnableIpv6));
    }
    if link.ipv6_autoconfiguration == Some(true) {
        let made = found.addresses.iter().map(|address| address.net);
        let made = made.filter(|net| is_link_local(net) && !device.addresses.contains(net));
        all.push(difference(
            Thing::Autoconfiguration,
            "is on",
            Remedy::DisableAutoconfiguration(made.collect()),
        ));
    }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn addresses(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    let mut done: Vec<IpNet> = Vec::new();
    for address in &wanted.device.addresses {
        // IPv4 addresses of one network depend on the first of them, so they are put back together, in order.
        let group: Vec<IpNet> = match address {
            IpNet::V4(_) => {
                let same_net = |other: &&IpNet| other.addr().is_ipv4() && other.trunc() == address.trunc();
                wanted.device.addresses.iter().filter(same_net).copied().collect()
            }
            IpNet::V6(_) => vec![*address],
        };
        if group.first() != Some(address) || done.contains(address) {
            continue;
        }
        done.extend(&group);
        let wrong: Vec<(IpNet, &str)> = (0..)
            .zip(&group)
            .filter_map(|(at, net)| Some((*net, wrong_address(*net, at > 0, &found.addresses)?)))
            .collect();
        let present = |net: &IpNet| found.addresses.iter().any(|state| state.net == *net);
        let mut remedy = Some(Remedy::Addresses {
            remove: group
                .iter()
                .copied()
                .filter(present)
                .chain(misfits(&group, found))
                .collect(),
            add: group.clone(),
        });
        for (net, seen) in wrong {
            // One remedy is for all of them.
            let remedy = remedy.take().unwrap_or(Remedy::Addresses {
                remove: Vec::new(),
                add: Vec::new(),
            });
            all.push(difference(Thing::Address(net), seen, remedy));
        }
    }
    let Some(routes) = &found.routes else { return };
    for address in wanted.device.addresses.iter() {
        let there = found.addresses.iter().any(|state| state.net == *address);
        let ip = address.addr();
        let is_local =
            |route: &Route| matches!(route.target, RouteTarget::Local(_)) && route.net == IpNet::from(ip);
        if there && found.link.up && !routes.iter().any(is_local) {
            let remedy = Remedy::Addresses {
                remove: vec![*address],
                add: vec![*address],
            };
            all.push(difference(Thing::Local(ip), "is missing", remedy));
        }
    }
}

fn wrong_address(net: IpNet, secondary: bool, found: &[AddressState]) -> Option<&'static str> {
    match found.iter().find(|state| state.net == net) {
        None => Some("is missing"),
        Some(state) if !state.usable => Some("cannot be used, or not for long"),
        Some(state) if state.net.addr().is_ipv4() && state.secondary != secondary => {
            Some("has lost its place")
        }
        Some(_) => None,
    }
}

/// Returns the IPv6 addresses of `group` that the device has with another length of the prefix: it can have one only.
fn misfits<'a>(group: &'a [IpNet], found: &'a Found) -> impl Iterator<Item = IpNet> + 'a {
    let misfit = |state: &&AddressState| {
        let same = |net: &IpNet| net.addr() == state.net.addr() && *net != state.net;
        state.net.addr().is_ipv6() && group.iter().any(same)
    };
    found.addresses.iter().filter(misfit).map(|state| state.net)
}

fn routes(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    let Some(routes) = &found.routes else { return };
    // There may be tens of thousands of them.
    let mut by_net: HashMap<(IpNet, u32), Vec<&Route>> = HashMap::with_capacity(routes.len());
    for route in routes {
        by_net.entry((route.net, route.table)).or_default().push(route);
    }
    let there = |route: &Route| {
        let same = by_net.get(&(route.net, route.table));
        same.is_some_and(|same| same.iter().any(|there| route.is(there)))
    };
    for route in wanted.all_routes() {
        if !there(&route) {
            all.push(difference(
                Thing::Route(route),
                "is missing",
                Remedy::Route(route),
            ));
        }
    }
}

fn rules(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    let there: HashSet<Rule> = found.rules.iter().filter_map(SeenRule::rule).collect();
    for rule in wanted.rules.iter().filter(|rule| !there.contains(rule)) {
        all.push(difference(Thing::Rule(*rule), "is missing", Remedy::Rule(*rule)));
    }
}

fn hook(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    let Some(program) = wanted.hook else { return };
    let device = &found.link.name;
    if let Some(id) = found.before_filters.first() {
        let seen = format!("comes too late: the TCX program with id {id} takes packets before it");
        let fix = format!("bpftool net show dev {device}");
        all.push(difference(Thing::Hook, seen, Remedy::None).fix(fix));
        return;
    }
    let is_own = |filter: &&TcFilter| filter.program == Some(program);
    let own: Vec<TcFilter> = found.filters.iter().filter(is_own).cloned().collect();
    let Some(first) = found.filters.first().filter(|filter| !is_own(filter)) else {
        if own.is_empty() {
            all.push(difference(Thing::Hook, "is missing", Remedy::Hook(own)));
        }
        return;
    };
    // What the fix removes is in the way if the node cannot attach.
    let fix = format!("tc filter del dev {device} egress pref {}", first.priority);
    let seen = match own.is_empty() {
        true => "is missing".to_owned(),
        false => format!(
            "comes too late: a {} filter of priority {} takes packets before it",
            first.kind, first.priority
        ),
    };
    all.push(difference(Thing::Hook, seen, Remedy::Hook(own)).fix(fix));
}

/// Packets of peers come by what is at the ingress of the device before the host sees them. What it does with them nobody
/// can tell.
fn ingress(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    if wanted.hook.is_none() {
        return;
    }
    let device = &found.link.name;
    let (seen, fix) = if let Some(id) = found.link.xdp.first() {
        (
            format!("is taken: the XDP program with id {id} gets what peers send before the host does"),
            format!("ip link set dev {device} xdp off; ip link set dev {device} xdpgeneric off"),
        )
    } else if let Some(id) = found.ingress_programs.first() {
        (
            format!("is taken: the TCX program with id {id} gets what peers send before the host does"),
            format!("bpftool net show dev {device}"),
        )
    } else if let Some(TcFilter { kind, priority, .. }) = found.ingress_filters.first() {
        (
            format!(
                "is taken: a {kind} filter of priority {priority} gets what peers send before the host does"
            ),
            format!("tc filter del dev {device} ingress pref {priority}"),
        )
    } else {
        return;
    };
    all.push(difference(Thing::Ingress, seen, Remedy::None).fix(fix));
}

fn nft(found: &Found, all: &mut Vec<Difference>) {
    let (rules, n) = found.nft;
    let seen = match n {
        _ if rules.is_empty() => return,
        n if n == rules.n_rules() => return,
        0 => "is missing or empty",
        _ => "has other rules",
    };
    all.push(difference(Thing::Nft, seen, Remedy::Nft(rules)));
}

fn settings(found: &Found, all: &mut Vec<Difference>) {
    for off in &found.settings.1 {
        let thing = Thing::Setting(off.setting.clone());
        let found = match &off.ends_default_of {
            None => difference(thing, "is off", Remedy::Setting(off.setting.clone())),
            Some(interface) => {
                let seen = format!(
                    "is off, and not the node's to turn on: it would end the default route that a router advertises at \
                     {interface}"
                );
                difference(thing, seen, Remedy::None)
            }
        };
        all.push(found.fix(off.fix()));
    }
}

fn gateways(wanted: &Wanted, found: &Found, all: &mut Vec<Difference>) {
    for (name, gateway) in wanted.gateways.iter().zip(&found.gateways) {
        let thing = || Thing::Gateway(name.clone());
        let Some(FoundGateway { link, programs }) = gateway else {
            let seen = format!("carries nothing: there is no interface {name}");
            all.push(difference(thing(), seen, Remedy::Wait));
            continue;
        };
        let Some(address) = link.ethernet_address else {
            all.push(difference(
                thing(),
                "carries nothing: it is no Ethernet interface now",
                Remedy::Wait,
            ));
            continue;
        };
        let Some(place) = found.places.iter().find(|place| place.name == *name) else {
            continue;
        };
        let is_there = place.program.is_some_and(|program| programs.contains(&program));
        let is_attached = is_there && place.index == link.index;
        let seen = if place.index != link.index {
            "is another interface of that name"
        } else if !is_attached {
            "has lost its program"
        } else if place.address != address {
            "has another hardware address"
        } else if !place.in_table {
            "is not in the program's table"
        } else {
            continue;
        };
        let interface = GatewayInterface {
            name: name.clone(),
            index: link.index,
            address,
        };
        all.push(difference(
            thing(),
            seen,
            Remedy::Gateway {
                interface,
                is_attached,
            },
        ));
    }
}

pub(super) fn difference(thing: Thing, seen: impl Into<String>, remedy: Remedy) -> Difference {
    Difference {
        thing,
        seen: seen.into(),
        remedy,
        fix: None,
    }
}

impl Difference {
    /// Sets the command by which a person puts it right.
    pub(super) fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }
}

#[cfg(test)]
mod tests;
