//! Looks whether packets for peers' networks go to the device, or somebody else's route or rule takes them.
//!
//! Routes are read from the tables; which of them and of the rules is in force the kernel is asked, a network at a time.
//! A longer prefix inside a peer's network is the host's own if it comes with an address of an interface, as that of a LAN or
//! of a bridge for containers does, or was there at the start or at the last reload, which name it; any other that comes
//! later takes packets without anybody's knowledge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::info;

use super::compare::{Difference, Remedy, difference};
use super::rest::Rest;
use super::thing::Thing;
use super::wanted::Wanted;
use crate::device::{Netlink, NetlinkError, SeenRoute, SeenRule, TABLE_LOCAL, Way};
use crate::node::tunnel_routes::{OwnNumbers, is_block_of_a_node};
use stream_router_engine::route_plan::{RouteTable, is_widest};

/// Networks that the kernel is asked about in one look, in turn.
const LOOKUPS: usize = 128;

/// Networks that the kernel is asked about in one look after the rules have changed, until all were.
const MANY_LOOKUPS: usize = 1024;

/// Pause before the next look while there are networks to ask about.
const NEXT_LOOKUPS: Duration = Duration::from_secs(1);

/// Ways that are named; of the others there is a number.
const MAX_NAMED: usize = 16;

/// What was seen of the ways to the peers' networks.
#[derive(Debug)]
pub(super) struct Ways {
    /// Longer prefixes inside peers' networks that are the host's own.
    accepted: BTreeSet<IpNet>,
    /// Those of them that came with addresses later.
    linked: BTreeSet<IpNet>,
    /// The next look at the tables accepts what it finds.
    accepts: bool,
    /// Of the tables.
    rest: Rest,
    taken: Vec<Taken>,
    /// Networks whose packets go elsewhere by what the kernel says.
    diverted: BTreeMap<IpNet, Diverted>,
    rules: Vec<SeenRule>,
    /// How many networks are still to be asked about since the rules have changed.
    n_due: usize,
    /// The network that was asked about last.
    last: Option<IpNet>,
}

/// A route of others that takes packets of a peer's network.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    route: SeenRoute,
    of: IpNet,
}

impl Taken {
    /// Returns whether it is a longer prefix, and no half of everything: that can be a network of the host's own.
    fn is_inside(&self) -> bool {
        self.route.net.prefix_len() > self.of.prefix_len() && !is_widest(self.route.net)
    }

    fn acceptance(&self) -> String {
        let Self { route, of } = self;
        format!(
            "{}, {}, lies inside {of} of a peer and stays this host's",
            route.net,
            route.whereto()
        )
    }
}

/// Where packets of a network go, and the command that changes that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Diverted {
    seen: String,
    fix: String,
}

/// What one look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) differences: Vec<Difference>,
    /// What is the host's own from now on, each with what it takes.
    pub(super) accepted: Vec<String>,
    /// The next look should be sooner than usual.
    pub(super) again: Option<Duration>,
}

impl Ways {
    /// Makes one that has looked at nothing yet.
    pub(super) fn new() -> Self {
        Self {
            accepted: BTreeSet::new(),
            linked: BTreeSet::new(),
            accepts: true,
            rest: Rest::default(),
            taken: Vec::new(),
            diverted: BTreeMap::new(),
            rules: Vec::new(),
            n_due: 0,
            last: None,
        }
    }

    /// Takes longer prefixes that the next look finds for the host's own.
    pub(super) fn accept(&mut self) {
        self.accepts = true;
    }

    /// Looks at the ways to the wanted networks, whose own routes are there, with these `rules` in force.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub(super) async fn look(
        &mut self,
        netlink: &Netlink,
        wanted: &Wanted,
        rules: &[SeenRule],
    ) -> Result<Look, NetlinkError> {
        let networks = &wanted.networks;
        let mut accepted = Vec::new();
        let begun = Instant::now();
        if self.accepts || self.rest.is_over(begun) {
            let numbers = OwnNumbers::of(&wanted.device.name);
            let mut taken = Vec::new();
            for table in tables(networks) {
                let routes = netlink.routes_of_table(numbers.table(table)).await?;
                taken.extend(takes(networks, table, &routes, wanted.device.index));
            }
            accepted = self.handle_taken(taken);
            self.rest.begin(begun, Instant::now());
        }
        if self.rules != rules {
            self.rules = rules.to_vec();
            self.n_due = networks.len();
        }
        self.diverted.retain(|net, _| networks.contains_key(net));
        self.ask(netlink, wanted).await?;
        Ok(Look {
            differences: self.differences(networks),
            accepted,
            again: (self.n_due > 0).then_some(NEXT_LOOKUPS),
        })
    }

    /// Returns what is wrong by the last look at the ways to the wanted networks.
    pub(super) fn last(&self, wanted: &Wanted) -> Vec<Difference> {
        self.differences(&wanted.networks)
    }

    /// Takes over what the tables have; returns what is accepted that was not before.
    fn handle_taken(&mut self, taken: Vec<Taken>) -> Vec<String> {
        let (inside, mut taken): (Vec<_>, Vec<_>) = taken.into_iter().partition(Taken::is_inside);
        let mut new = Vec::new();
        if std::mem::take(&mut self.accepts) {
            let before = std::mem::take(&mut self.accepted);
            self.accepted = inside.iter().map(|taken| taken.route.net).collect();
            let is_new = |taken: &&Taken| !before.contains(&taken.route.net);
            new.extend(
                inside
                    .iter()
                    .filter(is_new)
                    .take(MAX_NAMED)
                    .map(Taken::acceptance),
            );
        }
        let is_accepted = |taken: &Taken| self.accepted.contains(&taken.route.net);
        let later = inside.into_iter().filter(|taken| !is_accepted(taken));
        let (linked, others): (Vec<_>, Vec<_>) = later.partition(|taken| taken.route.is_of_address);
        for taken in linked
            .iter()
            .filter(|taken| !self.linked.contains(&taken.route.net))
        {
            info!("{}", taken.acceptance());
        }
        self.linked = linked.iter().map(|taken| taken.route.net).collect();
        taken.extend(others);
        self.taken = taken;
        new
    }

    /// Asks the kernel about some of the networks, in turn.
    async fn ask(&mut self, netlink: &Netlink, wanted: &Wanted) -> Result<(), NetlinkError> {
        let networks = &wanted.networks;
        let n = networks.len().min(self.n_due.clamp(LOOKUPS, MANY_LOOKUPS));
        let after: Vec<(IpNet, RouteTable)> = {
            let all = || networks.iter().map(|(net, table)| (*net, *table));
            let rest = all().filter(|(net, _)| self.last.is_none_or(|last| *net > last));
            rest.chain(all()).take(n).collect()
        };
        let asks_source = self.rules.iter().any(SeenRule::has_source);
        for (net, table) in after {
            self.last = Some(net);
            let Some(to) = representative(net) else { continue };
            let own = wanted.device.addresses.iter().map(IpNet::addr);
            let own = own.filter(|own| asks_source && own.is_ipv4() == to.is_ipv4());
            let mut diverted = None;
            for source in std::iter::once(None).chain(own.map(Some)) {
                let way = netlink.way_to(to, source).await?;
                diverted = diverted.or_else(|| self.judge((net, table), way, (to, source), wanted));
            }
            match diverted {
                Some(diverted) => self.diverted.insert(net, diverted),
                None => self.diverted.remove(&net),
            };
        }
        self.n_due = self.n_due.saturating_sub(n);
        Ok(())
    }

    /// Says whether a way is another than that to the device, and what could be done about it.
    fn judge(
        &self,
        (net, table): (IpNet, RouteTable),
        way: Way,
        (to, source): (IpAddr, Option<IpAddr>),
        wanted: &Wanted,
    ) -> Option<Diverted> {
        let numbers = OwnNumbers::of(&wanted.device.name);
        let is_foreign = |rule: &&SeenRule| {
            rule.may_be_for(to, source) && rule.rule().is_none_or(|rule| !wanted.rules.contains(&rule))
        };
        let foreign = || self.rules.iter().filter(is_foreign);
        match way {
            Way::By(route) if route.kind.is_empty() && route.output == Some(wanted.device.index) => None,
            Way::By(route) => {
                let whereto = route.whereto();
                let is_in = |table: RouteTable| route.table == numbers.table(table);
                // The look at the tables has found it, or it is the host's own, such as an address of the device.
                let is_longer = route.net.prefix_len() > net.prefix_len();
                let is_own =
                    route.table == TABLE_LOCAL || table == RouteTable::Exit && is_in(RouteTable::Main);
                if is_longer && (is_in(table) || is_own) {
                    return None;
                }
                let rule = foreign().find(|rule| rule.table() == Some(route.table) && !is_default(rule));
                Some(match rule.filter(|_| !is_in(table)) {
                    Some(rule) => Diverted {
                        seen: format!(
                            "leads elsewhere, {whereto}: the rule {} has table {} looked at first",
                            rule.priority(),
                            route.table
                        ),
                        fix: rule.removal(),
                    },
                    None => Diverted {
                        seen: format!("leads elsewhere, {whereto}, by the route {route}"),
                        fix: route.removal(),
                    },
                })
            }
            Way::Nowhere(errno) => {
                let rule = foreign().find(|rule| rule.leads_nowhere());
                Some(match rule {
                    Some(rule) => Diverted {
                        seen: format!("leads nowhere: the rule {} ends it", rule.priority()),
                        fix: rule.removal(),
                    },
                    None => Diverted {
                        seen: format!("leads nowhere: {}", errno.desc()),
                        fix: format!(
                            "ip route get {to}; ip{} rule",
                            if to.is_ipv6() { " -6" } else { "" }
                        ),
                    },
                })
            }
        }
    }

    fn differences(&self, networks: &BTreeMap<IpNet, RouteTable>) -> Vec<Difference> {
        let mut found: BTreeMap<Thing, Difference> = BTreeMap::new();
        for Taken { route, of } in self.taken.iter().filter(|taken| networks.contains_key(&taken.of)) {
            let why = match route.net == *of {
                true => format!("a peer has it, but the route {route} goes before the node's"),
                false => format!(
                    "it lies inside {of}, which a peer has, and has come after the node's start or last reload"
                ),
            };
            let thing = Thing::Way(route.net);
            let seen = format!("leads elsewhere, {}: {why}", route.whereto());
            let difference = difference(thing.clone(), seen, Remedy::None).fix(route.removal());
            found.entry(thing).or_insert(difference);
        }
        for (net, Diverted { seen, fix }) in &self.diverted {
            let thing = Thing::Way(*net);
            let difference = difference(thing.clone(), seen, Remedy::None).fix(fix);
            found.entry(thing).or_insert(difference);
        }
        let n = found.len();
        let mut found: Vec<_> = found.into_values().take(MAX_NAMED).collect();
        if let Some(last) = found.last_mut().filter(|_| n > MAX_NAMED) {
            last.seen += &format!("; and so do {} more", n - MAX_NAMED);
        }
        found
    }
}

/// Returns whether a rule is one that every host has.
fn is_default(rule: &SeenRule) -> bool {
    [0, 32_766, 32_767].contains(&rule.priority())
}

/// Returns the tables that can have a route that goes before those of the networks.
fn tables(networks: &BTreeMap<IpNet, RouteTable>) -> BTreeSet<RouteTable> {
    let mut tables: BTreeSet<RouteTable> = networks.values().copied().collect();
    // It is looked at before that of an exit, but for its default route.
    if tables.contains(&RouteTable::Exit) {
        tables.insert(RouteTable::Main);
    }
    tables
}

/// Returns which `routes` of a table take packets from which of the networks. There may be very many routes.
fn takes(
    networks: &BTreeMap<IpNet, RouteTable>,
    table: RouteTable,
    routes: &[SeenRoute],
    device: u32,
) -> Vec<Taken> {
    let is_own = |route: &SeenRoute| route.output == Some(device) && route.kind.is_empty();
    let of_table: BTreeMap<IpNet, RouteTable> = {
        let is_looked_at =
            |of: RouteTable| of == table || (of == RouteTable::Exit && table == RouteTable::Main);
        networks
            .iter()
            .filter(|(_, of)| is_looked_at(**of))
            .map(|(net, of)| (*net, *of))
            .collect()
    };
    // Where a network has its own route, and of which metric: the kernel lists those of one network in their order.
    let mut own: BTreeMap<IpNet, (usize, u32)> = BTreeMap::new();
    for (at, route) in routes.iter().enumerate().filter(|(_, route)| is_own(route)) {
        own.entry(route.net).or_insert((at, route.metric));
    }
    let lens: [BTreeSet<u8>; 2] = [false, true].map(|ipv6| {
        let nets = of_table.keys().filter(|net| net.addr().is_ipv6() == ipv6);
        nets.map(IpNet::prefix_len).collect()
    });
    let mut taken = Vec::new();
    for (at, route) in routes.iter().enumerate() {
        if is_own(route) || is_block_of_a_node(route) {
            continue;
        }
        let lens = &lens[usize::from(route.net.addr().is_ipv6())];
        let around = lens.range(..=route.net.prefix_len()).rev();
        let mut around = around.filter_map(|len| {
            let net = IpNet::new(route.net.addr(), *len).ok()?.trunc();
            of_table.get(&net).map(|of| (net, *of))
        });
        let Some((net, of)) = around.next() else { continue };
        let goes_first = match (of, table) {
            // Its default route is left out, and every network of the host's own is meant to go first, but for halves of
            // everything, which are default routes in disguise.
            (RouteTable::Exit, RouteTable::Main) if is_widest(net) => {
                route.net.prefix_len() == 1 && is_widest(route.net)
            }
            (RouteTable::Exit, RouteTable::Main) => true,
            _ if route.net == net => own
                .get(&net)
                .is_none_or(|(own_at, metric)| (route.metric, at) < (*metric, *own_at)),
            _ => true,
        };
        if goes_first {
            taken.push(Taken {
                route: route.clone(),
                of: net,
            });
        }
    }
    taken
}

/// Returns an address that stands for a network; `None` if there is none that packets are routed by.
fn representative(net: IpNet) -> Option<IpAddr> {
    let half = net.max_prefix_len().checked_sub(net.prefix_len())?.checked_sub(1);
    let to: IpAddr = match (net.trunc().addr(), half) {
        (address, None) => address,
        (IpAddr::V4(address), Some(half)) => Ipv4Addr::from_bits(address.to_bits() | 1 << half).into(),
        (IpAddr::V6(address), Some(half)) => Ipv6Addr::from_bits(address.to_bits() | 1 << half).into(),
    };
    let is_routed = !(to.is_multicast() || to.is_loopback() || to.is_unspecified());
    is_routed.then_some(to)
}

#[cfg(test)]
mod tests;
