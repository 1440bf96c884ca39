//! What operators see of the ports that a gateway forwards.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ask::{Mapping, Protocol};
use super::nat;
use crate::control::{MappedPort, PortMappingState, PortMappingStatus};
use stream_router::p2p::{Multiaddr, ReachSnapshot};

/// What operators see, as it was last.
#[derive(Debug, Default)]
pub(in crate::node) struct MappingBoard(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    state: PortMappingState,
    gateway: Option<Ipv4Addr>,
    detail: Option<String>,
    mapped: Vec<ShownPort>,
}

#[derive(Debug)]
struct ShownPort {
    address: String,
    port: u16,
    protocol: Protocol,
    expires: Option<Instant>,
}

impl MappingBoard {
    /// Shows that nothing is forwarded. Returns whether it was another state, or for another reason.
    pub(super) fn set_state(
        &self,
        state: PortMappingState,
        gateway: Option<Ipv4Addr>,
        detail: Option<String>,
    ) -> bool {
        let mut shown = self.shown();
        let is_news = (shown.state, &shown.detail) != (state, &detail);
        *shown = Shown {
            state,
            gateway,
            detail,
            mapped: Vec::new(),
        };
        is_news
    }

    /// Shows what is forwarded. Returns whether that was other ports or addresses.
    pub(super) fn set_mapped(&self, gateway: Ipv4Addr, mapped: &[Mapping], detail: Option<String>) -> bool {
        let ports = mapped.iter().map(|mapping| ShownPort {
            address: mapping.address().to_string(),
            port: mapping.port.number.get(),
            protocol: mapping.protocol(),
            expires: mapping.outside.expires,
        });
        let mapped: Vec<_> = ports.collect();
        let mut shown = self.shown();
        let addresses =
            |ports: &[ShownPort]| ports.iter().map(|port| port.address.clone()).collect::<Vec<_>>();
        let is_news = addresses(&shown.mapped) != addresses(&mapped) || shown.detail != detail;
        *shown = Shown {
            state: PortMappingState::Mapped,
            gateway: Some(gateway),
            detail,
            mapped,
        };
        is_news
    }

    /// Returns what is shown at `now`, of a node that listens at some addresses and that relays see at others.
    pub(in crate::node) fn status(
        &self,
        now: Instant,
        listening: &[Multiaddr],
        reach: &ReachSnapshot,
    ) -> PortMappingStatus {
        let shown = self.shown();
        let mapped = shown.mapped.iter().map(|port| MappedPort {
            address: port.address.clone(),
            port: port.port,
            protocol: port.protocol.to_string(),
            expires_in_seconds: port
                .expires
                .map(|expires| expires.saturating_duration_since(now).as_secs_f64()),
        });
        PortMappingStatus {
            state: shown.state,
            gateway: shown.gateway.map(|gateway| gateway.to_string()),
            detail: shown.detail.clone(),
            mapped: mapped.collect(),
            nat: nat::kind(listening, reach.seen.iter().map(|(_, address)| address)),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
