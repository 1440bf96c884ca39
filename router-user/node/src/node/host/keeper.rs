//! Compares, and puts back what is the node's own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use nix::net::if_::if_indextoname;
use tracing::{info, warn};

use super::compare::{Difference, Remedy, differences};
use super::device_lost::DeviceLost;
use super::found::{Found, ipv6_setting};
use super::ledger::{Ledger, Verdict};
use super::pass::{Pass, list, right_rows, text};
use super::report::{HostReport, SeenDevice, row};
use super::rest::Rest;
use super::thing::{Level, Thing};
use super::wanted::Wanted;
use super::ways::Ways;
use crate::control::{EventKind, HostState, HostThing};
use crate::device::{Netlink, NetlinkError, Route, Rule, TcFilter, Tun, Whereabouts};
use crate::kernel::Kernel;
use crate::node::event_log::EventLog;
use crate::node::gateways::Gateways;
use stream_router_engine::causes::with_sources;

/// Most times that one comparison looks again after it has put something back: once for each level, and to see that all
/// is right.
const MAX_ROUNDS: usize = 6;

/// Time that the kernel may take until the host takes packets for an address, once it has it.
const LOCAL_DELAY: Duration = Duration::from_millis(500);

/// Keeps the host as the node wants it.
pub(in crate::node) struct Keeper {
    wanted: Wanted,
    netlink: Netlink,
    tun: Tun,
    kernel: Arc<Kernel>,
    gateways: Arc<Gateways>,
    ledger: Ledger,
    /// Why the remedy of a thing was refused.
    refused: BTreeMap<Thing, String>,
    /// Conflicts that were reported when they began, and are not the ledger's.
    foreign: BTreeSet<Thing>,
    ways: Ways,
    /// Of the routes while all is right: they stay as they were seen unless the kernel tells of a change.
    rest: Rest,
    /// When something was put back that addresses depend on, or an address.
    last_ground: Option<Instant>,
    n_put_back: u64,
    events: Arc<EventLog>,
    report: Arc<ArcSwap<HostReport>>,
}

/// What one comparison has done.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Outcome {
    /// What was put back, each with what was the matter.
    pub(in crate::node) put_back: Vec<String>,
    /// What is still wrong, each with what is the matter.
    pub(in crate::node) wrong: Vec<String>,
    /// Networks inside those of peers that are the host's own from now on, each with where it leads.
    pub(in crate::node) accepted: Vec<String>,
    /// The next look should be sooner than usual.
    pub(in crate::node) again: Option<Duration>,
}

impl Keeper {
    /// Makes a keeper of what the node has set up: the device `tun` and the kernel side.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(in crate::node) fn new(
        wanted: Wanted,
        tun: Tun,
        kernel: Arc<Kernel>,
        events: Arc<EventLog>,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            wanted,
            netlink: Netlink::open_filtering()?,
            tun,
            kernel,
            gateways: Arc::default(),
            ledger: Ledger::default(),
            refused: BTreeMap::new(),
            foreign: BTreeSet::new(),
            ways: Ways::new(),
            rest: Rest::default(),
            last_ground: None,
            n_put_back: 0,
            events,
            report: Arc::new(ArcSwap::from_pointee(HostReport::none_yet())),
        })
    }

    /// Returns where the outcome of the last comparison is.
    pub(in crate::node) fn report(&self) -> Arc<ArcSwap<HostReport>> {
        self.report.clone()
    }

    /// Returns what is wanted.
    pub(in crate::node) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Returns what is wanted, to change it. What is added is put in place by the next comparison; what is taken away stays
    /// in the kernel.
    pub(in crate::node) fn wanted_mut(&mut self) -> &mut Wanted {
        &mut self.wanted
    }

    /// Wants what is attached by now: the program with this id at the egress of the device, and the gateways.
    pub(in crate::node) fn set_hooks(&mut self, egress: u32, gateways: Arc<Gateways>) {
        self.wanted.hook = Some(egress);
        self.wanted.pins = self.kernel.programs.pin_directory().is_some();
        let places = gateways.places(&self.kernel).into_iter();
        self.wanted.gateways = places.map(|place| place.name).collect();
        self.gateways = gateways;
    }

    /// Adds routes, and wants them from now on; all or none.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(in crate::node) async fn add_routes(&mut self, routes: &[Route]) -> Result<(), NetlinkError> {
        let mut wanted: HashSet<Route> = self.wanted.routes.iter().copied().collect();
        // What is wanted already is there, or is put back.
        let new = routes.iter().copied().filter(|route| wanted.insert(*route));
        let new: Vec<Route> = new.collect();
        if let Err((added, refused)) = self.netlink.put_routes(&new).await {
            self.remove_routes(&added).await;
            return Err(refused);
        }
        self.wanted.routes.extend(new);
        Ok(())
    }

    /// Removes routes, and wants them no more; returns why for each that the kernel keeps.
    pub(in crate::node) async fn remove_routes(&mut self, routes: &[Route]) -> Vec<String> {
        let removed: HashSet<&Route> = routes.iter().collect();
        self.wanted.routes.retain(|route| !removed.contains(route));
        let mut kept: HashMap<IpNet, Vec<Route>> = HashMap::new();
        for route in self.wanted.all_routes() {
            kept.entry(route.net).or_default().push(route);
        }
        // The route of an address, or of another peer, may be the same one.
        let is_kept = |route: &Route| {
            let same_net = kept.get(&route.net);
            same_net.is_some_and(|others| others.iter().any(|other| route.is(other)))
        };
        let gone: Vec<Route> = routes.iter().copied().filter(|route| !is_kept(route)).collect();
        let left = self.netlink.take_routes(&gone).await;
        left.iter().map(|error| with_sources(error)).collect()
    }

    /// Adds policy rules, and wants them from now on; all or none.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(in crate::node) async fn add_rules(&mut self, rules: &[Rule]) -> Result<(), NetlinkError> {
        for (n_added, rule) in rules.iter().enumerate() {
            if let Err(refused) = self.netlink.put_rule(rule).await {
                self.remove_rules(&rules[..n_added]).await;
                return Err(refused);
            }
            if !self.wanted.rules.contains(rule) {
                self.wanted.rules.push(*rule);
            }
        }
        Ok(())
    }

    /// Removes policy rules, and wants them no more; returns why for each that the kernel keeps.
    pub(in crate::node) async fn remove_rules(&mut self, rules: &[Rule]) -> Vec<String> {
        let mut left = Vec::new();
        self.wanted.rules.retain(|rule| !rules.contains(rule));
        for rule in rules {
            if let Err(error) = self.netlink.take_rule(rule).await {
                left.push(with_sources(&error));
            }
        }
        left
    }

    /// Forgets every conflict, so that the next comparison puts back what was left, and takes networks of others inside those
    /// of peers for the host's own.
    pub(in crate::node) fn forgive(&mut self) {
        self.ledger.forgive();
        self.refused.clear();
        self.ways.accept();
    }

    /// Compares what the kernel tells nobody of, and the routes only if they have rested for long: there may be tens of
    /// thousands of them.
    ///
    /// # Errors
    /// Those of [`Keeper::compare`].
    pub(in crate::node) async fn compare_untold(&mut self) -> Result<Outcome, DeviceLost> {
        let mut pass = Pass::new(false);
        pass.looks_at_routes = self.rest.is_over(Instant::now());
        self.compare_in(pass).await
    }

    /// Compares, puts back, and reports. `went_down` says that the device was down in between.
    ///
    /// # Errors
    /// The device is not where it was made: nothing of it can be put back.
    pub(in crate::node) async fn compare(&mut self, went_down: bool) -> Result<Outcome, DeviceLost> {
        self.compare_in(Pass::new(went_down)).await
    }

    async fn compare_in(&mut self, mut pass: Pass) -> Result<Outcome, DeviceLost> {
        let begun = Instant::now();
        let mut outcome = self.rounds(&mut pass).await?;
        let is_right = outcome.as_ref().is_ok_and(Vec::is_empty) && pass.again.is_none();
        match is_right {
            true if pass.looks_at_routes => self.rest.begin(begun, Instant::now()),
            true => {}
            false => self.rest.end(),
        }
        if let Ok(left) = &mut outcome
            && let Err(error) = self.look_at_ways(left, &mut pass).await
        {
            outcome = Err(error);
        }
        let now = Instant::now();
        let left = match outcome {
            Ok(left) => left,
            Err(error) => {
                let why = with_sources(&error);
                warn!(
                    error = why,
                    "cannot compare the host with what the node wants of it"
                );
                let mut report = HostReport::clone(&self.report.load());
                (report.at, report.failed) = (now, Some(why));
                self.report.store(Arc::new(report));
                return Ok(Outcome::default());
            }
        };
        // There may be tens of thousands of them.
        let wrong: HashSet<&Thing> = left.iter().map(|difference| &difference.thing).collect();
        for thing in self.ledger.settle(|thing| wrong.contains(thing), now) {
            info!("{thing} is as the node wants it again");
        }
        self.refused.retain(|thing, _| wrong.contains(thing));
        self.foreign.retain(|thing| wrong.contains(thing));
        pass.changed.retain(|(thing, _)| !pass.refused.contains(thing));
        self.warn(&pass);
        self.n_put_back += pass.changed.len() as u64;
        self.publish(now, &left, &wrong, &mut pass);
        Ok(Outcome {
            put_back: pass.changed.into_iter().map(|(_, what)| what).collect(),
            wrong: left.iter().map(text).collect(),
            accepted: pass.accepted,
            again: pass.again,
        })
    }

    /// Adds to `left` which packets for peers do not go to the device although its own routes are right.
    async fn look_at_ways(
        &mut self,
        left: &mut Vec<Difference>,
        pass: &mut Pass,
    ) -> Result<(), NetlinkError> {
        let is_ground = |difference: &Difference| {
            let thing = &difference.thing;
            thing.level() != Level::Alone || matches!(thing, Thing::Rule(_))
        };
        let found = if left.iter().any(is_ground) {
            self.ways.last(&self.wanted)
        } else {
            let look = self.ways.look(&self.netlink, &self.wanted, &pass.rules).await?;
            pass.again = pass.again.into_iter().chain(look.again).min();
            pass.accepted = look.accepted;
            match look.differences.is_empty() || self.is_up().await? {
                true => look.differences,
                // Somebody has set it down meanwhile, which the next pass finds, and no packet goes there.
                false => Vec::new(),
            }
        };
        for difference in &found {
            if self.foreign.insert(difference.thing.clone()) {
                pass.given_up.push(text(difference));
            }
        }
        left.extend(found);
        Ok(())
    }

    async fn is_up(&self) -> Result<bool, NetlinkError> {
        let link = self.netlink.link_by_index(self.wanted.device.index).await?;
        Ok(link.is_some_and(|link| link.up))
    }

    /// Looks and puts back until all is right that can be; returns what is left.
    async fn rounds(&mut self, pass: &mut Pass) -> Result<Result<Vec<Difference>, NetlinkError>, DeviceLost> {
        let mut left = Vec::new();
        for _ in 0..MAX_ROUNDS {
            self.check_whereabouts()?;
            self.wanted.exit.look_at_sources(&self.wanted.device.name);
            let with_routes = pass.looks_at_routes;
            let found = Found::read(
                &self.netlink,
                &self.kernel,
                &self.gateways,
                &self.wanted,
                with_routes,
            );
            let found = match found.await {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.check_whereabouts()?;
                    return Ok(Err(self.vanished()));
                }
                Err(error) => return Ok(Err(error)),
            };
            left = differences(&self.wanted, &found);
            pass.device = Some(SeenDevice {
                name: found.link.name,
                mtu: found.link.mtu,
                addresses: found.addresses.iter().map(|state| state.net).collect(),
            });
            pass.settings = found.settings.0;
            pass.has_nft = !found.nft.0.is_empty();
            pass.rules = found.rules;
            let due = self.due(pass, &mut left);
            if due.is_empty() {
                break;
            }
            // What was put back may have taken routes with it.
            pass.looks_at_routes = true;
            for difference in due {
                self.apply(&difference, pass).await;
            }
        }
        Ok(Ok(left))
    }

    fn check_whereabouts(&self) -> Result<(), DeviceLost> {
        let name = || self.wanted.device.name.clone();
        match self.tun.whereabouts() {
            Whereabouts::Here => Ok(()),
            Whereabouts::Deleted => Err(DeviceLost::Deleted { name: name() }),
            Whereabouts::Elsewhere => Err(DeviceLost::Moved { name: name() }),
        }
    }

    fn vanished(&self) -> NetlinkError {
        NetlinkError::Refused {
            action: format!("find the device {}", self.wanted.device.name),
            source: std::io::ErrorKind::NotFound.into(),
        }
    }

    /// Returns what of `left` is to be put back now: the lowest level, and what rests on nothing.
    fn due(&mut self, pass: &mut Pass, left: &mut Vec<Difference>) -> Vec<Difference> {
        let now = Instant::now();
        if let Some(rest) = self
            .last_ground
            .and_then(|at| (at + LOCAL_DELAY).checked_duration_since(now))
            && !rest.is_zero()
        {
            let before = left.len();
            left.retain(|difference| !matches!(difference.thing, Thing::Local(_)));
            if left.len() < before {
                pass.again = Some(rest);
            }
        }
        let levels = left.iter().map(|difference| difference.thing.level());
        if let Some(lowest) = levels.min() {
            pass.lowest = pass.lowest.min(lowest);
        }
        let mut due = Vec::new();
        for difference in left.iter() {
            let thing = &difference.thing;
            if pass.refused.contains(thing) {
                continue;
            }
            if matches!(difference.remedy, Remedy::Wait | Remedy::None) {
                if self.foreign.insert(thing.clone()) {
                    pass.given_up.push(text(difference));
                }
                continue;
            }
            match self.ledger.judge(thing, pass.lowest, now) {
                Verdict::Changed => pass.changed.push((thing.clone(), text(difference))),
                Verdict::Again => {
                    if pass.followed.insert(thing.clone()) && !self.refused.contains_key(thing) {
                        pass.n_followed += 1;
                    }
                }
                Verdict::GivenUp => {
                    pass.given_up.push(text(difference));
                    continue;
                }
                Verdict::Left => continue,
            }
            due.push(difference.clone());
        }
        // A device that is left down has no routes.
        let is_left_down = left.iter().any(|difference| difference.thing == Thing::Up)
            && !due.iter().any(|difference| difference.thing == Thing::Up);
        if is_left_down {
            due.retain(|difference| matches!(difference.thing.level(), Level::Device | Level::Alone));
        }
        let lowest = due.iter().map(|difference| difference.thing.level()).min();
        due.retain(|difference| {
            let level = difference.thing.level();
            Some(level) == lowest || level == Level::Alone
        });
        due
    }

    async fn apply(&mut self, difference: &Difference, pass: &mut Pass) {
        let thing = &difference.thing;
        match self.remedy(&difference.remedy).await {
            Ok(()) => {
                self.ledger.put_back(thing);
                if thing.level() <= Level::Address || matches!(thing, Thing::Local(_)) {
                    self.last_ground = Some(Instant::now());
                }
            }
            Err(why) => {
                pass.refused.insert(thing.clone());
                if self.refused.insert(thing.clone(), why.clone()).as_ref() != Some(&why) {
                    warn!(error = why, "{} and cannot be put back", text(difference));
                }
            }
        }
    }

    async fn remedy(&self, remedy: &Remedy) -> Result<(), String> {
        let (netlink, device) = (&self.netlink, &self.wanted.device);
        let index = device.index;
        let done = match remedy {
            Remedy::Rename => netlink.rename(index, &device.name).await,
            Remedy::Release => netlink.release(index).await,
            Remedy::SetUp => netlink.set_up(index).await,
            Remedy::SetMtu => netlink.set_mtu(index, device.mtu).await,
            Remedy::EnableIpv6 => return self.enable_ipv6(),
            Remedy::DisableAutoconfiguration(addresses) => {
                let mut done = netlink.disable_ipv6_autoconfiguration(index).await;
                for address in addresses {
                    done = done.and(netlink.remove_address(index, *address).await);
                }
                done
            }
            Remedy::Addresses { remove, add } => {
                let mut done = Ok(());
                for address in remove {
                    done = done.and(netlink.remove_address(index, *address).await);
                }
                for address in add {
                    done = done.and(netlink.add_address(index, *address).await);
                }
                done
            }
            Remedy::Route(route) => netlink.put_route(route).await,
            Remedy::Rule(rule) => netlink.put_rule(rule).await,
            Remedy::Hook(own) => return self.attach(own),
            Remedy::Nft(rules) => return rules.apply(&device.name).map_err(|error| with_sources(&error)),
            Remedy::Setting(setting) => return setting.write("1"),
            Remedy::Gateway {
                interface,
                is_attached,
            } => {
                let (kernel, interface) = (&self.kernel, interface.clone());
                let attached = self.gateways.attach_again(kernel, interface, *is_attached);
                return attached.map_err(|error| with_sources(&error));
            }
            Remedy::Pins => {
                let pinned = self.kernel.programs.pin_again();
                return pinned.map_err(|error| with_sources(&error));
            }
            Remedy::Wait | Remedy::None => Ok(()),
        };
        done.map_err(|error| with_sources(&error))
    }

    fn enable_ipv6(&self) -> Result<(), String> {
        let setting = ipv6_setting(&self.name_now()?);
        fs::write(&setting, "0").map_err(|error| format!("cannot write {setting}: {error}"))
    }

    fn attach(&self, own: &[TcFilter]) -> Result<(), String> {
        let is_own = |priority, handle| {
            own.iter()
                .any(|filter| (filter.priority, filter.handle) == (priority, handle))
        };
        let attached = self
            .kernel
            .programs
            .attach_egress_again(&self.name_now()?, is_own);
        attached.map_err(|error| with_sources(&error))
    }

    /// Returns the name that the device has, which need not be its own.
    fn name_now(&self) -> Result<String, String> {
        let name = if_indextoname(self.wanted.device.index).map_err(|errno| errno.to_string())?;
        if name.is_empty() {
            return Err("the device is gone".to_owned());
        }
        Ok(name.to_string_lossy().into_owned())
    }

    fn warn(&self, pass: &Pass) {
        let (changed, with_it) = (list(&pass.changed), pass.n_followed);
        if !pass.changed.is_empty() {
            let device = &self.wanted.device.name;
            self.events.note(EventKind::PutBack, changed.clone());
            warn!(
                device,
                changed, with_it, "the host was changed by somebody else, and put back"
            );
        }
        for conflict in &pass.given_up {
            warn!(
                conflict,
                "the host is changed by somebody else time and again, or not the node's to change: left as it is; once it \
                 is right, or at a reload, the node goes on"
            );
        }
    }

    fn publish(&self, now: Instant, left: &[Difference], wrong: &HashSet<&Thing>, pass: &mut Pass) {
        let mut things: Vec<_> = left.iter().map(|difference| self.wrong_row(difference)).collect();
        things.extend(right_rows(&self.wanted, wrong, pass));
        self.report.store(Arc::new(HostReport {
            at: now,
            failed: None,
            things,
            n_put_back: self.n_put_back,
            device: pass.device.take(),
        }));
    }

    fn wrong_row(&self, difference: &Difference) -> HostThing {
        let what = text(difference);
        let refused = self.refused.get(&difference.thing);
        let (state, detail) = if difference.remedy == Remedy::None {
            (HostState::Conflict, what)
        } else if self.ledger.is_conflict(&difference.thing) {
            let detail = format!("{what}; somebody changes it time and again, so it is left");
            (HostState::Conflict, detail)
        } else {
            let detail = match refused {
                Some(why) => format!("{what}, and cannot be put back: {why}"),
                None => what,
            };
            (HostState::Wrong, detail)
        };
        // What the node can put back it does, at a reload at the latest.
        let is_for_others = difference.remedy == Remedy::None || refused.is_some();
        HostThing {
            detail: Some(detail),
            fix: difference.fix.clone().filter(|_| is_for_others),
            ..row(&difference.thing, state)
        }
    }
}
