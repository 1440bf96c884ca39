//! What a node adds to the host's routing for the networks of its peers, and what of it outlives the node.
//!
//! Each network has a route to the device, and beside it one that leads nowhere and has the last place: it takes over
//! while the device is down, gone, or not there yet, so that no packet for a peer leaves by another route. So have the
//! networks of the device itself, whose routes to it come and go with its addresses: a peer's packet for an address that
//! somebody has removed must not be forwarded to elsewhere. Networks that
//! would take the packets between nodes as well, and those that go before the host's own, are in tables of the node,
//! which rules lead all other packets to. The numbers of tables, rules and metrics follow from the name of the device, so
//! that a node knows its own from those of another node on the same host.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU32;

use ipnet::IpNet;

use crate::config::{Config, OnStop};
use crate::device::{NOWHERE, Netlink, NetlinkError, Route, RouteTarget, Rule, SeenRoute, TABLE_MAIN};
use stream_router_engine::causes::with_sources;
use stream_router_engine::route_plan::{HostRoute, RouteTable};

/// How many names of devices have numbers of their own.
const N_SLOTS: u32 = 1024;

/// First metric of routes that lead nowhere: behind all that anybody else gives a route.
const FIRST_METRIC: u32 = 4_000_000_000;

/// Metrics of the routes that lead nowhere of all nodes.
const METRICS: std::ops::Range<u32> = FIRST_METRIC..FIRST_METRIC + N_SLOTS;

/// First number of a routing table: the table of an exit, then that of overriding networks.
const FIRST_TABLE: u32 = 5_200_000;

/// First priority of a rule: two for overriding networks, one for the main table, one for the table of an exit.
const FIRST_PRIORITY: u32 = 2000;
const N_PRIORITIES: u32 = 4;

/// First priority of the rule that stands in for that of an exit when somebody deletes it, or empties its table, until it
/// is put back.
const FIRST_SPARE: u32 = 30_000;

/// The numbers by which a node knows its own routes and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnNumbers(u32);

impl OwnNumbers {
    /// Returns the numbers of the node whose device has this name.
    pub(crate) fn of(device: &str) -> Self {
        // FNV-1a.
        let hash = device.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Self(hash % N_SLOTS)
    }

    fn metric(self) -> u32 {
        FIRST_METRIC + self.0
    }

    /// Returns the number of a table.
    pub(super) fn table(self, table: RouteTable) -> u32 {
        match table {
            RouteTable::Main => TABLE_MAIN,
            RouteTable::Exit => FIRST_TABLE + 2 * self.0,
            RouteTable::Override => FIRST_TABLE + 2 * self.0 + 1,
        }
    }

    fn priority(self) -> u32 {
        FIRST_PRIORITY + N_PRIORITIES * self.0
    }

    fn spare_priority(self) -> u32 {
        FIRST_SPARE + self.0
    }

    /// Returns the route that leads `net` nowhere.
    fn block(self, net: IpNet, table: RouteTable) -> Route {
        Route {
            target: RouteTarget::Unreachable,
            net,
            table: self.table(table),
            metric: Some(self.metric()),
            source: None,
        }
    }

    fn is_own_route(self, route: &Route) -> bool {
        is_block(route) && route.metric == Some(self.metric())
    }

    fn is_own_rule(self, rule: &Rule) -> bool {
        // Those of others may have the same place.
        let is_for_unmarked = rule.not && rule.mark.is_some() && rule.suppress_prefix_len.is_none();
        let is_for_networks = !rule.not && rule.mark.is_none() && rule.suppress_prefix_len == Some(0);
        if rule.priority == self.spare_priority() {
            return is_for_unmarked && [NOWHERE, self.table(RouteTable::Exit)].contains(&rule.table);
        }
        let leads_to = match rule.priority.checked_sub(self.priority()) {
            Some(0 | 1) => self.table(RouteTable::Override),
            Some(2) => TABLE_MAIN,
            Some(3) => self.table(RouteTable::Exit),
            _ => return false,
        };
        let is_of_kind = if leads_to == TABLE_MAIN {
            is_for_networks
        } else {
            is_for_unmarked
        };
        is_of_kind && rule.table == leads_to
    }
}

/// Routes and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TunnelRoutes {
    /// Routes, those that lead nowhere before those to the device.
    pub(crate) routes: Vec<Route>,
    /// Rules, in the order of their places.
    pub(crate) rules: Vec<Rule>,
}

impl TunnelRoutes {
    /// Returns what the networks of a configuration need, with the device at `index`.
    pub(crate) fn of(config: &Config, index: u32) -> Self {
        let device = config.device();
        let numbers = OwnNumbers::of(device.name());
        let mark = config.transport().fwmark();
        Self::planned(&config.routes(), device.addresses(), numbers, index, mark)
    }

    fn planned(
        networks: &BTreeMap<IpNet, RouteTable>,
        addresses: &[IpNet],
        numbers: OwnNumbers,
        index: u32,
        mark: Option<NonZeroU32>,
    ) -> Self {
        let of_peers = networks.iter().map(|(net, table)| (*net, *table));
        let own = addresses
            .iter()
            .map(|address| (address.trunc(), RouteTable::Main));
        let blocked: BTreeSet<_> = of_peers.chain(own).collect();
        let blocks = blocked.into_iter().map(|(net, table)| numbers.block(net, table));
        let to_device = networks.iter().map(|(net, table)| Route {
            table: numbers.table(*table),
            ..Route::to_interface(index, *net)
        });
        Self {
            routes: blocks.chain(to_device).collect(),
            rules: mark.map_or_else(Vec::new, |mark| rules(networks, numbers, mark)),
        }
    }

    /// Returns what of `self` is not in `other`. There may be tens of thousands of routes.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let others: HashSet<_> = other.routes.iter().collect();
        let routes = self.routes.iter().filter(|route| !others.contains(route));
        let rules = self.rules.iter().filter(|rule| !other.rules.contains(rule));
        Self {
            routes: routes.copied().collect(),
            rules: rules.copied().collect(),
        }
    }

    /// Returns what the kernel has of a node with these numbers that outlives the node.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub(crate) async fn left(netlink: &Netlink, numbers: OwnNumbers) -> Result<Self, NetlinkError> {
        let mut routes = netlink.unreachable_routes().await?;
        routes.retain(|route| numbers.is_own_route(route));
        let mut rules = netlink.rules().await?;
        rules.retain(|rule| numbers.is_own_rule(rule));
        Ok(Self { routes, rules })
    }

    /// Returns what the kernel has of all nodes that outlives them, whatever the names of their devices, but for those with
    /// these numbers.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub(crate) async fn left_of_all(netlink: &Netlink, but: &[OwnNumbers]) -> Result<Self, NetlinkError> {
        let all = Self {
            routes: netlink.unreachable_routes().await?,
            rules: netlink.rules().await?,
        };
        Ok(all.of_nodes(but))
    }

    fn of_nodes(mut self, but: &[OwnNumbers]) -> Self {
        let goes = |slot| slot < N_SLOTS && !but.contains(&OwnNumbers(slot));
        self.routes.retain(|route| {
            let slot = route.metric.and_then(|metric| metric.checked_sub(FIRST_METRIC));
            is_block(route) && slot.is_some_and(goes)
        });
        self.rules.retain(|rule| {
            let slot = match rule.priority.checked_sub(FIRST_SPARE) {
                Some(slot) => Some(slot),
                None => rule
                    .priority
                    .checked_sub(FIRST_PRIORITY)
                    .map(|place| place / N_PRIORITIES),
            };
            slot.is_some_and(|slot| goes(slot) && OwnNumbers(slot).is_own_rule(rule))
        });
        self
    }

    /// Returns the routes that lead nowhere, and then the rest.
    pub(super) fn blocks_first(self) -> (Self, Self) {
        let (blocks, routes) = self.routes.into_iter().partition(is_block);
        let blocks = Self {
            routes: blocks,
            rules: Vec::new(),
        };
        let rest = Self {
            routes,
            rules: self.rules,
        };
        (blocks, rest)
    }

    /// Returns the routes that lead nowhere of networks in the main table that `after` has nothing for. To send their
    /// packets elsewhere is not what somebody wants who takes a peer out for a while; a default route is another matter,
    /// without which the host would be cut off.
    pub(super) fn held(&self, after: &Self, nets: &BTreeSet<IpNet>) -> Vec<Route> {
        let routed: HashSet<IpNet> = after.routes.iter().map(|route| route.net).collect();
        let is_free = |net: &IpNet| {
            let mut around = std::iter::successors(Some(*net), IpNet::supernet);
            !around.any(|net| routed.contains(&net))
        };
        let held = self.routes.iter().filter(|route| {
            is_block(route) && route.table == TABLE_MAIN && nets.contains(&route.net) && is_free(&route.net)
        });
        held.copied().collect()
    }

    /// Returns those of `blocks` that keep packets from leaving by another route of the host.
    pub(super) async fn needed(
        blocks: Vec<Route>,
        device: &str,
        netlink: &Netlink,
    ) -> Result<Vec<Route>, NetlinkError> {
        if blocks.is_empty() {
            return Ok(blocks);
        }
        let host = netlink.host_routes(device).await?;
        let is_held = |route: &Route| host.iter().any(|other| other.net.contains(&route.net));
        Ok(blocks.into_iter().filter(is_held).collect())
    }

    /// Adds what is there; what was there already is as good, but costs a look at all routes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn put(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let put = netlink.put_routes(&self.routes).await;
        put.map_err(|(_, refused)| refused)?;
        for rule in &self.rules {
            netlink.put_rule(rule).await?;
        }
        Ok(())
    }

    /// Removes what is there, rules first; returns a text for each that could not be removed.
    pub(crate) async fn take(&self, netlink: &Netlink) -> Vec<String> {
        let mut left = Vec::new();
        for rule in &self.rules {
            left.extend(
                netlink
                    .take_rule(rule)
                    .await
                    .err()
                    .map(|error| with_sources(&error)),
            );
        }
        let kept = netlink.take_routes(&self.routes).await;
        left.extend(kept.iter().map(|error| with_sources(error)));
        left
    }

    /// Returns what nothing would leave without: networks that no other route of the host holds, and the rules if all
    /// networks of their tables are such.
    fn of_no_use(&self, host: &[HostRoute]) -> Self {
        let is_held = |net: &IpNet| host.iter().any(|route| route.net.contains(net));
        let (held, free): (Vec<Route>, Vec<Route>) =
            self.routes.iter().partition(|route| is_held(&route.net));
        let is_needed = |rule: &Rule| {
            held.iter()
                .any(|route| route.table != TABLE_MAIN && route.net.addr().is_ipv6() == rule.ipv6)
        };
        Self {
            routes: free,
            rules: self
                .rules
                .iter()
                .filter(|rule| !is_needed(rule))
                .copied()
                .collect(),
        }
    }
}

/// Returns whether a route is one that leads nowhere, of this node or of another.
pub(super) fn is_block_of_a_node(route: &SeenRoute) -> bool {
    route.kind == "unreachable" && METRICS.contains(&route.metric)
}

/// Returns whether networks are a default route of a family, or both of its halves.
fn is_everything(networks: &BTreeMap<IpNet, RouteTable>, ipv6: bool) -> bool {
    let of_len = |len| {
        let widest = networks.keys().filter(|net| net.addr().is_ipv6() == ipv6);
        widest.filter(|net| net.prefix_len() == len).count()
    };
    of_len(0) == 1 || of_len(1) == 2
}

fn is_block(route: &Route) -> bool {
    route.target == RouteTarget::Unreachable
}

fn rules(networks: &BTreeMap<IpNet, RouteTable>, numbers: OwnNumbers, mark: NonZeroU32) -> Vec<Rule> {
    let mut rules = Vec::new();
    for ipv6 in [false, true] {
        let has = |table| {
            let mut of_family = networks.iter().filter(|(net, _)| net.addr().is_ipv6() == ipv6);
            of_family.any(|(_, one)| *one == table)
        };
        let unmarked = |priority, table| Rule {
            ipv6,
            priority,
            table,
            mark: Some(mark.get()),
            not: true,
            suppress_prefix_len: None,
        };
        let first = numbers.priority();
        if has(RouteTable::Override) {
            // Twice, so that one takes over when somebody deletes the other.
            rules.push(unmarked(first, numbers.table(RouteTable::Override)));
            rules.push(unmarked(first + 1, numbers.table(RouteTable::Override)));
        }
        if has(RouteTable::Exit) {
            let spare = match is_everything(networks, ipv6) {
                true => NOWHERE,
                false => numbers.table(RouteTable::Exit),
            };
            rules.push(unmarked(numbers.spare_priority(), spare));
            // The host's own networks, but not its default route.
            rules.push(Rule {
                ipv6,
                priority: first + 2,
                table: TABLE_MAIN,
                mark: None,
                not: false,
                suppress_prefix_len: Some(0),
            });
            rules.push(unmarked(first + 3, numbers.table(RouteTable::Exit)));
        }
    }
    rules
}

/// Why a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Somebody stops it: SIGINT.
    OnPurpose,
    /// It may be started again at once: SIGTERM.
    Unknown,
    /// It failed, and is to be started again.
    Failure,
}

impl StopReason {
    /// Returns the name of the signal.
    pub(super) fn signal(self) -> &'static str {
        match self {
            Self::OnPurpose => "SIGINT",
            Self::Unknown => "SIGTERM",
            Self::Failure => "none",
        }
    }
}

/// Removes what a stop is to leave nothing of; returns a text for each that could not be removed.
///
/// # Errors
/// The kernel refuses to say what there is.
pub(super) async fn clear(
    config: &Config,
    reason: StopReason,
    is_managed: bool,
    netlink: &Netlink,
) -> Result<Vec<String>, NetlinkError> {
    let device = config.device().name();
    let left = TunnelRoutes::left(netlink, OwnNumbers::of(device)).await?;
    let gone = match kept(config.device().on_stop(), reason, is_managed) {
        Kept::All => return Ok(Vec::new()),
        Kept::Nothing => left,
        Kept::Needed => left.of_no_use(&netlink.host_routes(device).await?),
    };
    Ok(gone.take(netlink).await)
}

/// What of the routes that lead nowhere a stop leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    All,
    /// What holds packets that would leave by another route.
    Needed,
    Nothing,
}

fn kept(on_stop: Option<OnStop>, reason: StopReason, is_managed: bool) -> Kept {
    match (reason, on_stop) {
        (StopReason::Failure, _) | (_, Some(OnStop::Block)) => Kept::All,
        (StopReason::OnPurpose, _) => Kept::Nothing,
        // A service manager tells a stop from a restart, and has `purge` remove the rest.
        (StopReason::Unknown, _) if is_managed => Kept::All,
        (StopReason::Unknown, Some(OnStop::Remove)) => Kept::Nothing,
        (StopReason::Unknown, None) => Kept::Needed,
    }
}

#[cfg(test)]
mod tests;
