//! Applies another configuration to a running node: what takes effect at once, and in which order.
//!
//! Nothing changes unless all of it can. Then the new peers' prefixes are routed to the device, where nobody takes
//! their packets yet; the kernel's table follows, then the workers and receivers, which see one table or the other and
//! nothing in between; then connections are closed and dialled; the routes that nobody needs any more go last. So a
//! peer that is gone has no address before it has no connection, and a flow of another peer sees nothing of it all.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::watch;

use super::exit_host::{ExitHost, ExitNeeds};
use super::host::{Host, Keeper};
use super::peer_registry::{NoRoom, PeerRegistry};
use super::peers::LivePeers;
use super::prefixes::PrefixTable;
use super::route_conflicts::Overlaps;
use super::tunnel_routes::TunnelRoutes;
use crate::config::{Changes, Config, OnStop, StreamRouterConfig};
use crate::device::{DeviceError, Netlink, NftError, Route};
use crate::kernel::{Kernel, KernelError};
use crate::metrics::TokenError;
use stream_router::p2p::{NetworkHandle, PeerConfig, StartError};
use stream_router_engine::causes::with_sources;
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::received_flows::ReceivedFlows;

/// Why a running node refuses a configuration. It goes on with the one it has.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// A node cannot have these peers.
    #[error("cannot take these peers")]
    Peers(#[from] StartError),
    /// A peer's prefix is an address of the running node's device.
    #[error(
        "{net} is an address of the device, and behind a peer in the file; restart the node to change device.addresses"
    )]
    OwnAddress {
        /// The prefix.
        net: IpNet,
    },
    /// Networks of peers are the host's own.
    #[error("cannot route the networks of peers to the device")]
    RouteConflicts(#[from] super::route_conflicts::RouteConflicts),
    /// Peers that are about to go leave no index for new ones.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A prefix cannot be routed to the device.
    #[error("cannot route a peer's prefix to the device")]
    Device(#[from] DeviceError),
    /// The host cannot serve as an exit.
    #[error("cannot serve as an exit")]
    Exit(#[source] NftError),
    /// The token of clients cannot be had.
    #[error("nobody can be let in by metrics.token_file")]
    Token(#[from] TokenError),
    /// The kernel's prefix table cannot be changed.
    #[error("cannot change the kernel's prefix table")]
    Kernel(#[from] KernelError),
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Differences between the old and the new configuration.
    pub changes: Changes,
    /// What could not be finished or has no effect, and why.
    pub notes: Vec<String>,
}

/// The parts of a node that a reload can change, and the configuration that it runs with.
pub(super) struct Reloadable {
    pub(super) running: Config,
    pub(super) registry: PeerRegistry,
    pub(super) peers: Arc<LivePeers>,
    pub(super) prefixes: Arc<PrefixTable>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) flows: Arc<FlowCache>,
    pub(super) received: Arc<ReceivedFlows>,
    pub(super) host: Arc<Host>,
    pub(super) exit: ExitHost,
    /// Routes that lead nowhere, of networks that no peer has any more.
    pub(super) held: Vec<Route>,
    pub(super) network: NetworkHandle,
    pub(super) limits: watch::Sender<StreamRouterConfig>,
}

impl Reloadable {
    /// Applies everything of `new` that a running node can take, or, on an error, nothing.
    pub(super) async fn apply(&mut self, new: &Config) -> Result<Reloaded, ReloadError> {
        let changes = self.running.changes(new);
        let adopted = self.running.adopting(new);
        check_addresses(&adopted)?;
        let network_peers = network_peers(&adopted);
        self.network
            .check_peers_and_relays(&network_peers, adopted.relay().via())?;
        let n_streams = adopted.streams().scaling().scaler.min;
        let table = self.registry.table(adopted.peers(), n_streams)?;
        let table = table.with_disabled(adopted.disabled());
        let netlink = Netlink::open_filtering().map_err(DeviceError::from)?;
        let found = Overlaps::look(&adopted, &self.running.routes(), &netlink).await;
        let mut notes: Vec<String> = found
            .map_err(DeviceError::from)?
            .refuse()?
            .iter()
            .map(ToString::to_string)
            .collect();
        let host = self.host.clone();
        let mut keeper = host.keeper().await;
        let index = keeper.wanted().device.index;
        let (before, after) = (
            TunnelRoutes::of(&self.running, index),
            TunnelRoutes::of(&adopted, index),
        );
        let (added, mut removed) = (after.without(&before), before.without(&after));
        let held = self.held(&changes, &adopted, (&before, &after), &netlink).await?;

        self.exit.check(&adopted).map_err(ReloadError::Exit)?;
        keeper
            .add_routes(&added.routes)
            .await
            .map_err(DeviceError::from)?;
        if let Err(refused) = keeper.add_rules(&added.rules).await {
            keeper.remove_routes(&added.routes).await;
            return Err(DeviceError::from(refused).into());
        }
        if let Err(refused) = self.prefixes.set_peers(&table) {
            keeper.remove_rules(&added.rules).await;
            keeper.remove_routes(&added.routes).await;
            return Err(refused.into());
        }
        let now = Instant::now();
        for id in changes.peers_added.iter().chain(&changes.peers_changed) {
            if let Some(peer) = table.by_id(id).filter(|peer| !peer.connected.load(Relaxed)) {
                // It is dialled anew: one that comes back may have been away for long.
                peer.absence.begin(now);
            }
        }
        table.apply_rates();
        self.peers.store(Arc::new(table));
        let via = adopted.relay().via().to_vec();
        self.network.set_peers_and_relays(network_peers, via).await?;
        self.network.set_relay_rates(adopted.relay().rates()).await;

        self.kernel.settings.set_flow_ttl(adopted.connections().ttl());
        self.flows.set_ttl(adopted.connections().ttl());
        self.received.set_ttl(adopted.connections().ttl());
        if adopted.router() != self.running.router() {
            self.limits.send_replace(adopted.router().clone());
        }
        self.running = adopted;
        let (stay, wanted) = (
            HashSet::<_>::from_iter(&held),
            HashSet::<_>::from_iter(&after.routes),
        );
        removed.routes.retain(|route| !stay.contains(route));
        let freed = self
            .held
            .iter()
            .filter(|route| !stay.contains(route) && !wanted.contains(route));
        removed.routes.extend(freed);
        notes.extend(keeper.remove_rules(&removed.rules).await);
        notes.extend(keeper.remove_routes(&removed.routes).await);
        let known: HashSet<_> = self.held.iter().collect();
        notes.extend(held.iter().filter(|route| !known.contains(route)).map(|route| {
            format!(
                "packets to {} go nowhere until a peer has it again, or the node is started anew: its peer was removed, \
                 and they would leave in the clear",
                route.net
            )
        }));
        self.held = held;
        let needs = ExitNeeds::of(&self.running);
        match self.exit.apply(&needs) {
            Ok(more) => notes.extend(more),
            // Checked above, so somebody has just changed what there is; it is tried again all the time.
            Err(error) => notes.push(format!("packets of peers do not leave: {}", with_sources(&error))),
        }
        let wanted = keeper.wanted_mut();
        wanted.exit = needs;
        wanted.networks = self.running.routes();
        notes.extend(look_at_host(&mut keeper).await);
        Ok(Reloaded { changes, notes })
    }

    /// Returns the routes that lead nowhere and stay after a reload, though no peer has their networks any more.
    async fn held(
        &self,
        changes: &Changes,
        adopted: &Config,
        (before, after): (&TunnelRoutes, &TunnelRoutes),
        netlink: &Netlink,
    ) -> Result<Vec<Route>, ReloadError> {
        if adopted.device().on_stop() == Some(OnStop::Remove) {
            return Ok(Vec::new());
        }
        let gone: HashSet<_> = changes.peers_removed.iter().collect();
        let removed = self
            .running
            .peers()
            .iter()
            .filter(|peer| gone.contains(&peer.id()));
        let nets: BTreeSet<IpNet> = removed.flat_map(|peer| peer.allowed_ips()).copied().collect();
        let mut held = before.held(after, &nets);
        let earlier = TunnelRoutes {
            routes: self.held.clone(),
            ..TunnelRoutes::default()
        };
        let nets = self.held.iter().map(|route| route.net).collect();
        held.extend(earlier.held(after, &nets));
        let device = adopted.device().name();
        Ok(TunnelRoutes::needed(held, device, netlink)
            .await
            .map_err(DeviceError::from)?)
    }
}

/// Returns the peers of a configuration as the network knows them.
pub(super) fn network_peers(config: &Config) -> Vec<PeerConfig> {
    let peer = |peer: &crate::config::PeerSection| {
        let mut config = PeerConfig::new(peer.id(), peer.addresses().to_vec());
        config.connect = peer.connect();
        config
    };
    config.peers().iter().map(peer).collect()
}

/// Checks the prefixes against the addresses of the running node. The file was checked against its own, which may
/// differ.
fn check_addresses(config: &Config) -> Result<(), ReloadError> {
    let own: BTreeSet<_> = config
        .device()
        .addresses()
        .iter()
        .map(|net| IpNet::from(net.addr()))
        .collect();
    match prefixes(config).intersection(&own).next() {
        Some(net) => Err(ReloadError::OwnAddress { net: *net }),
        None => Ok(()),
    }
}

fn prefixes(config: &Config) -> BTreeSet<IpNet> {
    config
        .peers()
        .iter()
        .flat_map(|peer| peer.allowed_ips())
        .copied()
        .collect()
}

/// Compares the host with what is wanted now, and puts back what was left before; returns what was changed and what is
/// wrong.
async fn look_at_host(keeper: &mut Keeper) -> Vec<String> {
    keeper.forgive();
    let outcome = match keeper.compare(false).await {
        Ok(outcome) => outcome,
        // The task that compares all the time finds it too, and ends the node.
        Err(lost) => return vec![with_sources(&lost)],
    };
    let put_back = outcome
        .put_back
        .into_iter()
        .map(|what| format!("{what}; put back"));
    put_back.chain(outcome.wrong).chain(outcome.accepted).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(address: &str, allowed_ips: &str) -> Config {
        let text = format!(
            "[device]\naddresses = ['{address}']\n\
             [[peer]]\nid = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'\n\
             addresses = ['/ip4/192.0.2.2/tcp/4001']\nallowed_ips = {allowed_ips}\n"
        );
        Config::parse(&text, Path::new("sr.toml")).unwrap()
    }

    #[test]
    fn a_peer_cannot_get_an_address_that_the_running_device_has() {
        let running = config("10.42.0.1/24", "['10.42.0.2/32']");
        // Right by itself: it gives the device another address, which needs a restart.
        let new = config("10.42.0.9/24", "['10.42.0.1/32']");

        let refused = check_addresses(&running.adopting(&new)).unwrap_err();

        assert!(matches!(refused, ReloadError::OwnAddress { net } if net.to_string() == "10.42.0.1/32"));
        check_addresses(&running).unwrap();
        // A network around the device's address is the usual case.
        check_addresses(&config("10.42.0.1/24", "['0.0.0.0/0']")).unwrap();
    }

    #[test]
    fn the_network_gets_each_peer_with_the_addresses_to_dial() {
        let config = config("10.42.0.1/24", "['10.42.0.2/32', '192.168.7.0/24']");

        let peers = network_peers(&config);

        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].peer, config.peers()[0].id());
        assert_eq!(peers[0].addresses, config.peers()[0].addresses());
        assert_eq!(prefixes(&config).len(), 2);
    }
}
