//! The DHT: what this node says of itself, what it keeps of others, and what it asks.

use std::{sync::atomic::Ordering::Relaxed, time::SystemTime};

use libp2p::{
    PeerId,
    kad::{self, GetRecordError, GetRecordOk, InboundRequest, QueryResult},
};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{dht::LookupReply, error::LookupError, host_addresses::HostAddresses};
use stream_router_engine::causes::with_sources;

impl Driver {
    /// Does what is due in the DHT.
    pub(super) fn run_dht(&mut self, now: Instant) {
        let is_present = |peer| self.connections.is_present(peer);
        let listening = self.swarm.listeners();
        let work = self
            .discovery
            .poll_dht(now, SystemTime::now(), is_present, listening, |listening| {
                // They lead here from everywhere.
                let mut addresses = self.state.mapped();
                addresses.extend(HostAddresses::read(self.state.remotes()).by_use(listening));
                addresses
            });
        if let Some(record) = work.publish {
            self.swarm.behaviour_mut().publish_record(record);
        }
        for peer in work.look_up {
            if let Some(query) = self.swarm.behaviour_mut().look_up_record(peer) {
                self.discovery.handle_lookup(query, peer, None);
            }
        }
        self.use_found(work.changes, now);
    }

    /// Looks up what a peer says of itself.
    pub(super) fn find_announcement(&mut self, peer: PeerId, reply: LookupReply) {
        let is_connected = self.connections.is_anybody_present();
        let behaviour = self.swarm.behaviour_mut();
        let begun = self
            .discovery
            .check_lookup(is_connected)
            .and_then(|()| behaviour.look_up_record(peer).ok_or(LookupError::Off));
        match begun {
            Ok(query) => self.discovery.handle_lookup(query, peer, Some(reply)),
            // The caller may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
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
                if let Err(reason) = self.keep_record(source, &record, now) {
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
                        self.discovery.handle_not_published(now);
                    }
                    _ => {}
                }
                if step.last {
                    self.discovery.handle_finished(id, timed_out);
                }
            }
            _ => {}
        }
    }

    /// Keeps a record that a peer has brought, if it is believed and new.
    fn keep_record(&mut self, source: PeerId, brought: &kad::Record, now: Instant) -> Result<(), String> {
        let believed = self
            .discovery
            .handle_brought(source, brought, now, SystemTime::now())?;
        self.use_found(believed.change, now);
        let Some(record) = believed.kept else {
            return Ok(());
        };
        let kept = self.swarm.behaviour_mut().keep_record(record);
        kept.map_err(|error| error.to_string())
    }

    fn handle_answer(&mut self, query: kad::QueryId, found: &kad::PeerRecord, now: Instant) {
        match self
            .discovery
            .handle_answer(query, &found.record, now, SystemTime::now())
        {
            Ok(change) => self.use_found(change, now),
            Err(error) => {
                let source = found.peer.unwrap_or(self.state.local_peer);
                self.refuse_record(source, &with_sources(&error));
            }
        }
    }

    fn refuse_record(&self, source: PeerId, reason: &str) {
        self.state.counters.records_refused.fetch_add(1, Relaxed);
        tracing::debug!(peer = %source, reason, "refused a record of the DHT");
    }
}
