//! The `[relay]` section.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::{
    address::relay_of,
    peer::{LEAST_RATE, RawPeer},
    problem::{Located, Problems},
    reader::Table,
};
use stream_router::p2p::{PeerId, RelayConfig, RelayRates, ServeConfig};

const VIA_ALLOWED: &str = "the names or ids of at most 2 peers that are enabled";

/// How many circuits the file may allow: each takes a copy in user space of all that crosses it.
const CIRCUITS: RangeInclusive<u32> = 1..=4096;

/// Through which peers this node is reached and reaches others, and whether it relays for its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaySection {
    via: Vec<PeerId>,
    serve: bool,
    limits: ServeConfig,
}

/// The section as read, with the places that later checks name.
pub(super) struct RawRelay {
    via: Vec<Located<String>>,
    serve: bool,
    limits: ServeConfig,
}

impl RelaySection {
    /// Returns the peers through which this node is reached.
    pub fn via(&self) -> &[PeerId] {
        &self.via
    }

    /// Returns whether this node relays for its peers.
    pub fn serve(&self) -> bool {
        self.serve
    }

    /// Returns the bounds of what it relays.
    pub(super) fn limits(&self) -> ServeConfig {
        self.limits
    }

    /// Returns the rates of what it relays.
    pub(crate) fn rates(&self) -> RelayRates {
        self.limits.rates
    }

    /// Returns this section with what of another one a running node can take: through whom it is reached, and its rates.
    pub(super) fn with_live_of(&self, new: &Self) -> Self {
        let mut section = self.clone();
        section.via.clone_from(&new.via);
        section.limits.rates = new.limits.rates;
        section
    }

    /// Returns what the network has to know of it.
    pub(crate) fn network_config(&self) -> RelayConfig {
        RelayConfig {
            via: self.via.clone(),
            serve: self.serve.then_some(self.limits),
        }
    }
}

impl RawRelay {
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let serve = table.boolean("serve", problems).unwrap_or(false);
        let via = table.strings("via", VIA_ALLOWED, problems).unwrap_or_default();
        let mut circuits = |name, default: usize| {
            let found = table.integer(name, CIRCUITS, problems);
            found.map_or(default, |found| found.value as usize)
        };
        let usual = ServeConfig::default();
        let max_circuits = circuits("max_circuits", usual.max_circuits);
        let max_circuits_per_peer = circuits("max_circuits_per_peer", usual.max_circuits_per_peer);
        let mut rate = |name| {
            let found = table.integer(name, LEAST_RATE..=u32::MAX, problems);
            found.and_then(|found| NonZeroU32::new(found.value))
        };
        let rates = RelayRates {
            all: rate("max_rate"),
            per_peer: rate("max_rate_per_peer"),
        };
        let limits = ServeConfig {
            max_circuits,
            max_circuits_per_peer,
            rates,
        };
        table.finish(problems);
        Self { via, serve, limits }
    }

    /// Says whether a peer that has no address may reach this node through another; the others themselves do not.
    pub(super) fn leads_here(&self, peer: &RawPeer) -> bool {
        !self.via.is_empty() && !self.via.iter().any(|via| is_called(peer, &via.value))
    }

    /// Returns the section, with the ids of the peers that it names.
    pub(super) fn validated(self, peers: &[RawPeer], problems: &mut Problems) -> RelaySection {
        let mut via = Vec::new();
        for Located { place, value } in self.via {
            let meant = peers.iter().find(|peer| is_called(peer, &value));
            let id = meant.and_then(|peer| peer.id.as_ref());
            let wrong = match id.map(|id| id.value) {
                None => "is no enabled peer",
                Some(id) if via.contains(&id) => "is listed twice",
                Some(_) if via.len() == RelayConfig::MAX_VIA => "is one too many",
                Some(id) => {
                    via.push(id);
                    continue;
                }
            };
            problems.add(&place, format!("{value:?} {wrong}"), VIA_ALLOWED);
        }
        for peer in peers {
            for relay in peer.addresses.iter().filter_map(relay_of) {
                let is_relay = |other: &RawPeer| other.id.as_ref().is_some_and(|id| id.value == relay);
                if !peers.iter().any(is_relay) {
                    problems.add(
                        &peer.place,
                        format!("has an address through relay {relay}, which is no enabled peer"),
                        "addresses through peers that have sections of their own",
                    );
                }
            }
        }
        RelaySection {
            via,
            serve: self.serve,
            limits: self.limits,
        }
    }
}

/// Says whether `text` is the name or the id of a peer.
fn is_called(peer: &RawPeer, text: &str) -> bool {
    let name = peer.name.as_ref().map(|name| name.value.as_str());
    name == Some(text) || peer.id.as_ref().is_some_and(|id| id.value.to_string() == text)
}
