//! Which start of a peer's node is at the other end of a connection: two that run at once with one key are a mistake, as each
//! takes the other's packets.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use libp2p::PeerId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{counters::LiveNetworkCounters, duplicates::Told};

/// How long connections of two starts stand side by side until they are taken for two nodes. The connection of a node that
/// was killed and started anew is found dead before.
const BOTH_STAND: Duration = Duration::from_secs(45);

/// Starts of a peer that are remembered, of which an earlier one does not come again.
const MAX_REMEMBERED: usize = 4;

/// Peers that are remembered. Whoever answers at a dialled address is one until the connection ends.
const MAX_PEERS: usize = 4096;

/// Reports of two nodes with one key that may wait to be told to both.
const MAX_REPORTS: usize = 16;

/// Time between two warnings that a peer has told this node of another with its key. Each of its connections may tell.
const TOLD_INTERVAL: Duration = Duration::from_secs(600);

/// Where two nodes are that run with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) one: IpAddr,
    pub(super) other: IpAddr,
}

/// The starts of all peers' nodes.
#[derive(Debug)]
pub(super) struct Instances {
    own: u64,
    state: Mutex<State>,
    counters: Arc<LiveNetworkCounters>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    peers: HashMap<PeerId, PeerInstances>,
    reports: Option<mpsc::Sender<(PeerId, Duplicate)>>,
    /// When each peer has told of another node with this node's key.
    told: HashMap<PeerId, Instant>,
}

#[derive(Debug, Default)]
struct PeerInstances {
    standing: HashMap<u64, Instance>,
    /// The latest comes last, and each is there once.
    seen: VecDeque<Instance>,
}

/// A start of a node, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instance {
    number: u64,
    at: SocketAddr,
}

/// A connection to a start of a peer's node, which stands until this is dropped.
#[derive(Debug)]
pub(super) struct Standing {
    instances: Arc<Instances>,
    peer: PeerId,
    number: u64,
}

impl Instances {
    pub(super) fn new(counters: Arc<LiveNetworkCounters>) -> Self {
        Self {
            own: rand::random(),
            state: Mutex::default(),
            counters,
        }
    }

    /// Returns the number of this start of this node.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// Records that a handshake with a peer has shown which start of its node is at `at`.
    pub(super) fn handle_secured(self: &Arc<Self>, peer: PeerId, number: u64, at: SocketAddr) -> Standing {
        let instance = Instance { number, at };
        let mut state = self.state();
        let connection = state.next;
        state.next += 1;
        if state.peers.len() >= MAX_PEERS {
            state.peers.retain(|_, known| !known.standing.is_empty());
        }
        let known = state.peers.entry(peer).or_default();
        known.standing.insert(connection, instance);
        let latest = known.seen.back().copied();
        let has_come_before = known.seen.iter().any(|seen| seen.number == number);
        known.seen.retain(|seen| seen.number != number);
        known.seen.push_back(instance);
        if known.seen.len() > MAX_REMEMBERED {
            known.seen.pop_front();
        }
        drop(state);
        if let Some(other) = latest.filter(|latest| latest.number != number) {
            if has_come_before {
                self.warn(peer, instance, other);
            } else {
                let instances = Arc::clone(self);
                tokio::spawn(async move {
                    sleep(BOTH_STAND).await;
                    if instances.both_stand(peer, instance, other) {
                        instances.warn(peer, instance, other);
                    }
                });
            }
        }
        Standing {
            instances: Arc::clone(self),
            peer,
            number: connection,
        }
    }

    fn both_stand(&self, peer: PeerId, one: Instance, other: Instance) -> bool {
        let state = self.state();
        let stands = |instance: Instance| {
            let known = state.peers.get(&peer);
            known.is_some_and(|known| {
                known
                    .standing
                    .values()
                    .any(|standing| standing.number == instance.number)
            })
        };
        stands(one) && stands(other)
    }

    /// Returns where each two nodes that are seen with the key of one peer are reported from now on, with the peer.
    pub(super) fn report_to(&self) -> mpsc::Receiver<(PeerId, Duplicate)> {
        let (reports, receiver) = mpsc::channel(MAX_REPORTS);
        self.state().reports = Some(reports);
        receiver
    }

    /// Records that a configured peer says that another node runs with this node's key.
    pub(super) fn handle_told(&self, by: PeerId, Told { own, other }: Told, now: Instant) {
        {
            let told = &mut self.state().told;
            told.retain(|_, at| now - *at < TOLD_INTERVAL);
            if told.len() >= MAX_PEERS || told.contains_key(&by) {
                return;
            }
            told.insert(by, now);
        }
        self.counters.duplicate_identities.fetch_add(1, Relaxed);
        tracing::warn!(
            at = %own,
            and_at = %other,
            %by,
            "another node runs with the key of this one, says a peer, and each takes the other's packets; give one of them a \
             key of its own",
        );
    }

    fn warn(&self, peer: PeerId, one: Instance, other: Instance) {
        let duplicate = Duplicate {
            one: one.at.ip(),
            other: other.at.ip(),
        };
        if let Some(reports) = &self.state().reports {
            // With no room both are told of the next time.
            let _full = reports.try_send((peer, duplicate));
        }
        self.counters.duplicate_identities.fetch_add(1, Relaxed);
        tracing::warn!(
            %peer,
            at = %one.at.ip(),
            and_at = %other.at.ip(),
            "two nodes run with the key of one peer, and each takes the other's packets; give one of them a key of its own",
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(known) = self.instances.state().peers.get_mut(&self.peer) {
            known.standing.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 4001))
    }

    fn instances() -> Arc<Instances> {
        Arc::new(Instances::new(Arc::default()))
    }

    fn n_duplicates(instances: &Instances) -> u64 {
        instances.counters.read().duplicate_identities
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_started_anew_is_one_node() {
        let (instances, peer) = (instances(), PeerId::random());
        let before = instances.handle_secured(peer, 1, at(1));
        let _another = instances.handle_secured(peer, 1, at(1));
        let _other_peer = instances.handle_secured(PeerId::random(), 7, at(2));
        drop(_another);
        let _after = instances.handle_secured(peer, 2, at(1));
        sleep(BOTH_STAND / 2).await;
        drop(before);
        sleep(BOTH_STAND).await;

        assert_eq!(n_duplicates(&instances), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_stand_side_by_side_are_two() {
        let (instances, peer) = (instances(), PeerId::random());
        let _one = instances.handle_secured(peer, 1, at(1));
        let _other = instances.handle_secured(peer, 2, at(2));

        sleep(BOTH_STAND * 2).await;

        assert_eq!(n_duplicates(&instances), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn two_nodes_are_reported_and_what_a_peer_tells_counts_once_in_a_while() {
        let (instances, peer) = (instances(), PeerId::random());
        let mut reports = instances.report_to();
        for number in [1, 2, 1] {
            drop(instances.handle_secured(peer, number, at(number as u8)));
        }

        let (one, other) = (at(1).ip(), at(2).ip());
        assert_eq!(reports.recv().await, Some((peer, Duplicate { one, other })));
        let told = Told { own: one, other };
        for _ in 0..3 {
            instances.handle_told(peer, told, Instant::now());
        }
        assert_eq!(n_duplicates(&instances), 2);
        sleep(TOLD_INTERVAL).await;
        instances.handle_told(peer, told, Instant::now());
        assert_eq!(n_duplicates(&instances), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_again_after_another_is_seen_at_once() {
        let (instances, peer) = (instances(), PeerId::random());
        for number in [1, 2, 1] {
            drop(instances.handle_secured(peer, number, at(number as u8)));
        }

        assert_eq!(n_duplicates(&instances), 1);
    }
}
