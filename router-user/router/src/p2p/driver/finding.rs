//! Finding configured peers: what the local network and the DHT say, and what of it is used.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{self, GetRecordError, GetRecordOk, InboundRequest, QueryResult, store::RecordStore},
};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{
    Announcement, LookupError, TransportKind,
    address::reachable,
    announcement::{key_of, peer_of},
    dht::{Dht, Reply, record},
    found::Found,
    local_network::LocalEvent,
};
use stream_router_engine::causes::with_sources;

/// What finding peers needs.
pub(in crate::p2p) struct Finding {
    pub(in crate::p2p) dht: Option<Dht>,
    pub(in crate::p2p) prefer: TransportKind,
    pub(in crate::p2p) is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Driver {
    pub(super) fn handle_local(&mut self, event: LocalEvent, now: Instant) {
        match event {
            LocalEvent::Seen(seen) => {
                for (peer, addresses) in self.usable_by_peer(seen) {
                    self.change_found(peer, now, |found| {
                        for address in addresses {
                            found.handle_seen(address);
                        }
                    });
                }
            }
            LocalEvent::Unseen(unseen) => {
                for (peer, addresses) in self.usable_by_peer(unseen) {
                    self.change_found(peer, now, |found| {
                        for address in &addresses {
                            found.handle_unseen(address);
                        }
                    });
                }
            }
            LocalEvent::Forgotten => {
                let peers: Vec<_> = self.peers.keys().copied().collect();
                for peer in peers {
                    self.change_found(peer, now, Found::forget_local);
                }
            }
        }
    }

    /// These peers are configured now, and were not before.
    pub(super) fn find_new_peers(&mut self, peers: &[PeerId], now: Instant) {
        for peer in peers {
            let local = self.swarm.behaviour().local_network.as_ref();
            let seen = local.map(|local| local.known(*peer)).unwrap_or_default();
            self.handle_local(LocalEvent::Seen(seen), now);
        }
        if !peers.is_empty() {
            self.look_for_absent(now);
        }
    }

    /// These are configured no more.
    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        if let Some(dht) = &mut self.finding.dht {
            dht.handle_forgotten(peer);
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.store_mut().remove(&key_of(peer));
        }
    }

    /// The first connection to a peer is up.
    pub(super) fn handle_neighbour(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        if let Some(dht) = &mut self.finding.dht {
            dht.handle_neighbour(now);
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            // Where an inbound connection comes from is no address to dial, but nothing is dialled for the DHT.
            kad.add_address(&peer, address.clone());
        }
    }

    /// The last connection to a peer is down.
    pub(super) fn handle_neighbour_gone(&mut self, peer: PeerId, now: Instant) {
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.remove_peer(&peer);
        }
        self.look_for_absent(now);
    }

    /// The addresses that we listen on have changed.
    pub(super) fn announce_change(&mut self, now: Instant) {
        if let Some(dht) = &mut self.finding.dht
            && self.links.values().any(|link| link.live)
        {
            dht.handle_change(now);
        }
    }

    fn look_for_absent(&mut self, now: Instant) {
        if let Some(dht) = &mut self.finding.dht
            && self.links.values().any(|link| link.live)
        {
            dht.handle_absent(now);
        }
    }

    /// Does what is due in the DHT.
    pub(super) fn run_dht(&mut self, now: Instant) {
        if self
            .finding
            .dht
            .as_ref()
            .and_then(Dht::poll_due)
            .is_none_or(|due| due > now)
        {
            return;
        }
        let absent: Vec<_> = self
            .peers
            .keys()
            .copied()
            .filter(|peer| !self.is_present(*peer))
            .collect();
        let listening = self.swarm.listeners().filter_map(|address| {
            let (address, ip) = reachable(address, None)?;
            (!(self.finding.is_inner)(ip)).then_some(address)
        });
        let listening: Vec<_> = listening.collect();
        let (Some(dht), Some(kad)) = (&mut self.finding.dht, self.swarm.behaviour_mut().kad.as_mut()) else {
            return;
        };
        if let Some(record) = dht.poll_publish(now, listening)
            && let Err(error) = kad.put_record(record, kad::Quorum::One)
        {
            tracing::warn!(%error, "cannot keep what this node says of itself");
        }
        let wanted = dht.poll_look(now, absent);
        for peer in &wanted {
            dht.handle_asked(kad.get_record(key_of(*peer)), *peer, None);
        }
        let time = SystemTime::now();
        for peer in wanted {
            self.change_found(peer, now, |found| {
                found.expire(time);
            });
        }
    }

    /// Asks for what a peer says of itself.
    pub(super) fn find_announcement(&mut self, peer: PeerId, reply: Reply) {
        let alone = !self.links.values().any(|link| link.live);
        let refusal = match (&mut self.finding.dht, self.swarm.behaviour_mut().kad.as_mut()) {
            (Some(_), Some(_)) if alone => LookupError::Alone,
            (Some(dht), Some(_)) if !dht.has_room() => LookupError::Busy,
            (Some(dht), Some(kad)) => {
                dht.handle_asked(kad.get_record(key_of(peer)), peer, Some(reply));
                return;
            }
            _ => LookupError::Off,
        };
        // Whoever asked may have gone.
        let _ = reply.send(Err(refusal));
    }

    pub(super) fn handle_kad(&mut self, event: kad::Event, now: Instant) {
        match event {
            kad::Event::InboundRequest {
                request:
                    InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } => {
                let kept = self.keep(&record, now);
                if let Err(reason) = kept {
                    self.refuse_record(source, &reason);
                }
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let timed_out = matches!(
                    &result,
                    QueryResult::GetRecord(Err(GetRecordError::Timeout { .. }))
                );
                match result {
                    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                        self.handle_answer(id, &found, now);
                    }
                    QueryResult::PutRecord(Err(error)) => {
                        tracing::debug!(%error, "no peer keeps what this node says of itself");
                        if let Some(dht) = &mut self.finding.dht {
                            dht.handle_not_published(now);
                        }
                    }
                    _ => {}
                }
                if let Some(dht) = self.finding.dht.as_mut().filter(|_| step.last) {
                    dht.handle_finished(id, timed_out);
                }
            }
            _ => {}
        }
    }

    /// Keeps a record that a peer has brought, if it is a configured peer's own.
    fn keep(&mut self, brought: &kad::Record, now: Instant) -> Result<(), String> {
        let peer = peer_of(&brought.key).ok_or("its key is no peer's")?;
        if !self.peers.contains_key(&peer) {
            return Err(format!("peer {peer} is not configured"));
        }
        let announcement = Dht::verify(&brought.value, peer).map_err(|error| with_sources(&error))?;
        if !self.learn(&announcement, now) {
            return Ok(());
        }
        let record = record(peer, brought.value.clone(), announcement.expires).ok_or("it has expired")?;
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        kad.map_or(Ok(()), |kad| kad.store_mut().put(record))
            .map_err(|error| error.to_string())
    }

    fn handle_answer(&mut self, query: kad::QueryId, found: &kad::PeerRecord, now: Instant) {
        let Some(peer) = self.finding.dht.as_ref().and_then(|dht| dht.asked_for(query)) else {
            return;
        };
        match Dht::verify(&found.record.value, peer) {
            Ok(announcement) => {
                if self.peers.contains_key(&peer) {
                    self.learn(&announcement, now);
                }
                if let Some(dht) = &mut self.finding.dht {
                    dht.handle_answer(query, announcement);
                }
            }
            Err(error) => {
                let source = found.peer.unwrap_or_else(|| self.connections.local_peer);
                self.refuse_record(source, &with_sources(&error));
            }
        }
    }

    /// Uses what a configured peer says of itself. False if it is nothing new.
    fn learn(&mut self, announcement: &Announcement, now: Instant) -> bool {
        let peer = announcement.peer;
        if !self
            .finding
            .dht
            .as_mut()
            .is_some_and(|dht| dht.is_news(announcement))
        {
            return false;
        }
        let usable: Vec<_> = announcement
            .addresses
            .iter()
            .filter(|address| self.usable(address, peer).is_some())
            .cloned()
            .collect();
        self.change_found(peer, now, |found| {
            found.handle_announced(announcement, |address| usable.contains(address));
        });
        true
    }

    fn refuse_record(&self, source: PeerId, reason: &str) {
        self.connections.counters.records_refused.fetch_add(1, Relaxed);
        tracing::debug!(peer = %source, reason, "refused a record of the DHT");
    }

    /// The addresses of configured peers among these, those of each together.
    fn usable_by_peer(&self, pairs: Vec<(PeerId, Multiaddr)>) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let mut by_peer: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (peer, address) in pairs {
            if self.peers.contains_key(&peer)
                && let Some(address) = self.usable(&address, peer)
            {
                by_peer.entry(peer).or_default().push(address);
            }
        }
        by_peer
    }

    /// An address to dial a peer at, without its id; `None` if it leads nowhere or into the tunnel.
    fn usable(&self, address: &Multiaddr, peer: PeerId) -> Option<Multiaddr> {
        let (address, ip) = reachable(address, Some(peer))?;
        (!(self.finding.is_inner)(ip)).then_some(address)
    }

    /// Changes what was found of a configured peer, and dials accordingly.
    fn change_found(&mut self, id: PeerId, now: Instant, change: impl FnOnce(&mut Found)) {
        let present = self.is_present(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let prefer = self.finding.prefer;
        let before = peer.found.all(prefer);
        change(&mut peer.found);
        let found = peer.found.all(prefer);
        if found == before {
            return;
        }
        let addresses: Vec<_> = found.iter().map(|found| found.address.clone()).collect();
        // Whoever is on the local network can provoke it.
        tracing::debug!(peer = %id, ?addresses, "found addresses of a peer");
        peer.redial.set_found(addresses, present, now);
        self.connections.set_found(id, found);
    }
}
