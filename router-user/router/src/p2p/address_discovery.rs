//! The discovery of addresses of configured peers: what the local network and the DHT say, and what of it is used.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::SystemTime};

use libp2p::{
    Multiaddr, PeerId,
    identity::Keypair,
    kad::{QueryId, Record},
};
use tokio::time::Instant;

use super::{
    address::{TransportKind, reachable},
    announcement::{Announcement, AnnouncementError, ClockDifference, LIFETIME, peer_of},
    config::DiscoveryConfig,
    dht::{DhtClient, LookupReply, record},
    error::LookupError,
    found::{FoundAddress, FoundAddresses},
    local_network::LocalEvent,
};
use stream_router_engine::causes::with_sources;

/// What is known of the addresses of configured peers beyond the configuration, and this node's part in the DHT.
pub(super) struct AddressDiscovery {
    dht: Option<DhtClient>,
    prefer: TransportKind,
    is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// The found addresses of every configured peer.
    found: BTreeMap<PeerId, FoundAddresses>,
    /// Which record of a configured peer with another clock came last, and when.
    off_clock: BTreeMap<PeerId, (u64, SystemTime)>,
}

/// The found addresses of a peer are others now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundChange {
    pub(super) peer: PeerId,
    /// All found addresses of the peer, the nearest first.
    pub(super) found: Vec<FoundAddress>,
}

/// A record that a peer has brought for the DHT and that is believed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BelievedRecord {
    /// The record to keep; `None` if it is nothing new.
    pub(super) kept: Option<Record>,
    pub(super) change: Option<FoundChange>,
}

/// What is due in the DHT.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DhtWork {
    /// The record of this node to publish.
    pub(super) publish: Option<Record>,
    /// The absent peers to look up.
    pub(super) look_up: Vec<PeerId>,
    /// Changes because what was announced has expired.
    pub(super) changes: Vec<FoundChange>,
}

impl AddressDiscovery {
    pub(super) fn new(
        keypair: Keypair,
        config: DiscoveryConfig,
        peers: impl IntoIterator<Item = PeerId>,
    ) -> Self {
        let found = peers.into_iter().map(|peer| (peer, FoundAddresses::default()));
        Self {
            dht: config.dht.map(|config| DhtClient::new(keypair, config)),
            prefer: config.prefer,
            is_inner: config.is_inner,
            found: found.collect(),
            off_clock: BTreeMap::new(),
        }
    }

    /// Adds a peer that is configured from now on.
    pub(super) fn add_peer(&mut self, peer: PeerId) {
        self.found.entry(peer).or_default();
    }

    /// Forgets a peer that is not configured any more.
    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        self.found.remove(&peer);
        self.off_clock.remove(&peer);
        if let Some(dht) = &mut self.dht {
            dht.remove_peer(peer);
        }
    }

    /// Takes in what has become known of the local network.
    pub(super) fn handle_local(&mut self, event: LocalEvent) -> Vec<FoundChange> {
        let changes: Vec<_> = match event {
            LocalEvent::Seen(seen) => self
                .usable_by_peer(seen)
                .into_iter()
                .map(|(peer, addresses)| {
                    self.change(peer, |found| {
                        for address in addresses {
                            found.handle_seen(address);
                        }
                    })
                })
                .collect(),
            LocalEvent::Unseen(unseen) => self
                .usable_by_peer(unseen)
                .into_iter()
                .map(|(peer, addresses)| {
                    self.change(peer, |found| {
                        for address in &addresses {
                            found.handle_unseen(address);
                        }
                    })
                })
                .collect(),
            LocalEvent::Forgotten => {
                let peers: Vec<_> = self.found.keys().copied().collect();
                peers
                    .into_iter()
                    .map(|peer| self.change(peer, FoundAddresses::forget_local))
                    .collect()
            }
        };
        changes.into_iter().flatten().collect()
    }

    /// Records that the first connection to a peer is up.
    pub(super) fn handle_neighbour(&mut self, now: Instant) {
        if let Some(dht) = &mut self.dht {
            dht.handle_neighbour(now);
        }
    }

    /// Records that this node listens on other addresses than before.
    pub(super) fn handle_listening_change(&mut self, now: Instant) {
        if let Some(dht) = &mut self.dht {
            dht.handle_change(now);
        }
    }

    /// Records that a peer has gone, or is new and not connected yet.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        if let Some(dht) = &mut self.dht {
            dht.handle_absent(now);
        }
    }

    /// Returns when [`AddressDiscovery::poll_dht`] has to be called next.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.dht.as_ref().and_then(DhtClient::poll_due)
    }

    /// Returns what is due in the DHT at `now`, which is `time` by the wall clock. `listening` are the addresses that
    /// this node listens on, and `by_use` puts those first that are of most use to others.
    pub(super) fn poll_dht<'a>(
        &mut self,
        now: Instant,
        time: SystemTime,
        is_present: impl Fn(PeerId) -> bool,
        listening: impl Iterator<Item = &'a Multiaddr>,
        by_use: impl FnOnce(Vec<Multiaddr>) -> Vec<Multiaddr>,
    ) -> DhtWork {
        let Some(dht) = self.dht.as_mut() else {
            return DhtWork::default();
        };
        if dht.poll_due().is_none_or(|due| due > now) {
            return DhtWork::default();
        }
        let is_inner = &self.is_inner;
        let listening = listening.filter_map(|address| outer(address, None, is_inner));
        let publish = dht.poll_publish(now, time, || by_use(listening.collect()));
        let absent = self.found.keys().copied().filter(|peer| !is_present(*peer));
        let look_up = dht.poll_lookups(now, absent.collect());
        let mut expire = |peer: &PeerId| {
            self.change(*peer, |found| {
                found.expire(time);
            })
        };
        let changes = look_up.iter().filter_map(&mut expire).collect();
        DhtWork {
            publish,
            look_up,
            changes,
        }
    }

    /// Records that no peer took the published record of this node.
    pub(super) fn handle_not_published(&mut self, now: Instant) {
        if let Some(dht) = &mut self.dht {
            dht.handle_not_published(now);
        }
    }

    /// Checks that a lookup may begin; `is_connected` says whether any peer is.
    pub(super) fn check_lookup(&self, is_connected: bool) -> Result<(), LookupError> {
        match &self.dht {
            None => Err(LookupError::Off),
            Some(_) if !is_connected => Err(LookupError::NotConnected),
            Some(dht) if !dht.has_room() => Err(LookupError::Busy),
            Some(_) => Ok(()),
        }
    }

    /// Records that a lookup of a peer has begun; its result goes to `reply`.
    pub(super) fn handle_lookup(&mut self, query: QueryId, peer: PeerId, reply: Option<LookupReply>) {
        if let Some(dht) = &mut self.dht {
            dht.handle_lookup(query, peer, reply);
        }
    }

    /// Takes in a record that a lookup has found.
    ///
    /// # Errors
    /// Returns why the record is not believed.
    pub(super) fn handle_answer(
        &mut self,
        query: QueryId,
        record: &Record,
        now: Instant,
        time: SystemTime,
    ) -> Result<Option<FoundChange>, AnnouncementError> {
        let looked_up = self.dht.as_ref().and_then(|dht| dht.looked_up(query));
        let Some(peer) = looked_up else {
            return Ok(None);
        };
        // Who keeps a record for the DHT keeps it for its lifetime from its receipt on.
        let announcement = self.recent(&record.value, peer, false, time)?;
        let change = self.learn(&announcement, false, now).flatten();
        if let Some(dht) = &mut self.dht {
            dht.handle_answer(query, announcement, now);
        }
        Ok(change)
    }

    /// Records that a lookup has ended.
    pub(super) fn handle_finished(&mut self, query: QueryId, timed_out: bool) {
        if let Some(dht) = &mut self.dht {
            dht.handle_finished(query, timed_out);
        }
    }

    /// Takes in a record that `source` has brought. One that a peer brings of itself is believed whatever its clock says.
    ///
    /// # Errors
    /// Returns why the record is refused.
    pub(super) fn handle_brought(
        &mut self,
        source: PeerId,
        brought: &Record,
        now: Instant,
        time: SystemTime,
    ) -> Result<BelievedRecord, String> {
        if peer_of(&brought.key) != Some(source) || !self.found.contains_key(&source) {
            return self.handle_record(brought, now, time);
        }
        let announcement = self.recent(&brought.value, source, true, time);
        self.believe(announcement, true, brought, now, time)
    }

    /// Takes in a record that a peer has brought, if it is the own record of a configured peer.
    ///
    /// # Errors
    /// Returns why the record is refused.
    pub(super) fn handle_record(
        &mut self,
        brought: &Record,
        now: Instant,
        time: SystemTime,
    ) -> Result<BelievedRecord, String> {
        let peer = peer_of(&brought.key).ok_or("its key is no peer's")?;
        if !self.found.contains_key(&peer) {
            return Err(format!("peer {peer} is not configured"));
        }
        self.believe(
            Announcement::verify(&brought.value, peer, time),
            false,
            brought,
            now,
            time,
        )
    }

    fn believe(
        &mut self,
        announcement: Result<Announcement, AnnouncementError>,
        by_itself: bool,
        brought: &Record,
        now: Instant,
        time: SystemTime,
    ) -> Result<BelievedRecord, String> {
        let announcement = announcement.map_err(|error| with_sources(&error))?;
        let Some(change) = self.learn(&announcement, by_itself, now) else {
            return Ok(BelievedRecord::default());
        };
        let kept = record(
            announcement.peer,
            brought.value.clone(),
            announcement.expires,
            now,
            time,
        );
        Ok(BelievedRecord {
            kept: Some(kept.ok_or("it has expired")?),
            change,
        })
    }

    /// Reads a record that was made recently, whatever the clock of its peer says. That counts from its first receipt on. One
    /// with a lower sequence is older, unless the peer brings it itself: its clock was set back.
    fn recent(
        &mut self,
        value: &[u8],
        peer: PeerId,
        by_itself: bool,
        time: SystemTime,
    ) -> Result<Announcement, AnnouncementError> {
        let (mut announcement, difference) = Announcement::verify_recent(value, peer, time)?;
        let Some(difference) = difference.filter(|_| self.found.contains_key(&peer)) else {
            return Ok(announcement);
        };
        let (sequence, since) = self
            .off_clock
            .get(&peer)
            .copied()
            .unwrap_or((announcement.sequence, time));
        match announcement.sequence == sequence {
            true => announcement.expires = since + LIFETIME,
            false if announcement.sequence < sequence && !by_itself && time < since + LIFETIME => {
                return Err(AnnouncementError::Expired);
            }
            false => {}
        }
        if announcement.expires <= time {
            return Err(AnnouncementError::Expired);
        }
        let is_new = self
            .off_clock
            .get(&peer)
            .is_none_or(|known| known.0 != announcement.sequence);
        if is_new {
            warn_of_clock(peer, difference);
            self.off_clock.insert(peer, (announcement.sequence, time));
        }
        Ok(announcement)
    }

    /// Uses what a peer says of itself. Returns `None` if the peer is not configured or has said nothing new, and
    /// otherwise whether its addresses have changed.
    fn learn(
        &mut self,
        announcement: &Announcement,
        by_itself: bool,
        now: Instant,
    ) -> Option<Option<FoundChange>> {
        let peer = announcement.peer;
        if !self.found.contains_key(&peer) || !self.dht.as_mut()?.is_news(announcement, by_itself, now) {
            return None;
        }
        let is_inner = Arc::clone(&self.is_inner);
        Some(self.change(peer, |found| {
            found.handle_announced(announcement, |address| {
                outer(address, Some(peer), &is_inner).is_some()
            });
        }))
    }

    /// Returns the usable addresses of configured peers among these, by peer.
    fn usable_by_peer(&self, pairs: Vec<(PeerId, Multiaddr)>) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let mut by_peer: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (peer, address) in pairs {
            if self.found.contains_key(&peer)
                && let Some(address) = outer(&address, Some(peer), &self.is_inner)
            {
                by_peer.entry(peer).or_default().push(address);
            }
        }
        by_peer
    }

    /// Changes what was found of a configured peer. Returns the change if the addresses to dial are others now.
    fn change(&mut self, peer: PeerId, change: impl FnOnce(&mut FoundAddresses)) -> Option<FoundChange> {
        let known = self.found.get_mut(&peer)?;
        let before = known.all(self.prefer);
        change(known);
        let found = known.all(self.prefer);
        (found != before).then_some(FoundChange { peer, found })
    }
}

fn warn_of_clock(peer: PeerId, difference: ClockDifference) {
    tracing::warn!(
        %peer,
        %difference,
        "the clock of a peer is not this host's; what it says of itself counts from its receipt on",
    );
}

/// Returns an address without the id of `peer`, or `None` if it leads nowhere or into the tunnel.
fn outer(
    address: &Multiaddr,
    peer: Option<PeerId>,
    is_inner: &Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
) -> Option<Multiaddr> {
    let (address, ip) = reachable(address, peer)?;
    (!is_inner(ip)).then_some(address)
}

#[cfg(test)]
mod tests;
