//! What `status` shows, gathered from every part of the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ipnet::IpNet;
use tracing::warn;

use super::counters::Counters;
use super::peers::{Peer, PeerTable};
use super::worker_pool::WorkerCounts;
use crate::config::Config;
use crate::control::{DeviceStatus, GatewayStatus, PeerState, PeerStatus, Status, StatusSource};
use crate::kernel::{Kernel, SocketDrops};
use crate::p2p::{NetworkHandle, PeerSnapshot, Snapshot};

/// Everything `status` reads.
pub(super) struct NodeStatus {
    started: Instant,
    device_name: String,
    device_index: u32,
    device_mtu: u32,
    device_addresses: Vec<IpNet>,
    kernel: Arc<Kernel>,
    peers: Arc<PeerTable>,
    /// Whether the configuration says where to dial each peer, by index.
    dialled: Vec<bool>,
    counters: Arc<Counters>,
    network: NetworkHandle,
    workers: Arc<WorkerCounts>,
    gateways: Vec<GatewayStatus>,
    socket_drops: Box<dyn Fn() -> SocketDrops + Send + Sync>,
}

impl NodeStatus {
    pub(super) fn new(
        config: &Config,
        device_index: u32,
        kernel: Arc<Kernel>,
        peers: Arc<PeerTable>,
        counters: Arc<Counters>,
        network: NetworkHandle,
        workers: Arc<WorkerCounts>,
    ) -> Self {
        Self {
            started: Instant::now(),
            device_name: config.device().name().to_owned(),
            device_index,
            device_mtu: config.device().mtu(),
            device_addresses: config.device().addresses().to_vec(),
            kernel,
            peers,
            dialled: config
                .peers()
                .iter()
                .map(|peer| !peer.addresses().is_empty())
                .collect(),
            counters,
            network,
            workers,
            gateways: Vec::new(),
            socket_drops: Box::new(SocketDrops::default),
        }
    }

    /// The same with the gateways that were attached, and what their sockets drop.
    pub(super) fn with_gateways(
        self,
        gateways: Vec<GatewayStatus>,
        socket_drops: impl Fn() -> SocketDrops + Send + Sync + 'static,
    ) -> Self {
        Self {
            gateways,
            socket_drops: Box::new(socket_drops),
            ..self
        }
    }

    fn peer(&self, peer: &Peer, snapshot: &Snapshot) -> PeerStatus {
        let network = snapshot.peers.iter().find(|other| other.peer == peer.id);
        let connection = network.and_then(|network: &PeerSnapshot| network.connections.first());
        let dialled = self.dialled.get(peer.index.0 as usize).copied().unwrap_or(false);
        let state = match connection {
            Some(_) => PeerState::Connected,
            None if dialled => PeerState::Connecting,
            None => PeerState::Disconnected,
        };
        PeerStatus {
            id: peer.id.to_string(),
            state,
            address: connection.map(|connection| connection.address.to_string()),
            rtt_ms: connection
                .and_then(|connection| connection.rtt)
                .map(|rtt| rtt.as_secs_f64() * 1e3),
            streams: peer.traffic.n_streams.load(Relaxed),
            allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
            tx_packets: peer.traffic.tx_packets.load(Relaxed),
            tx_bytes: peer.traffic.tx_bytes.load(Relaxed),
            rx_packets: peer.traffic.rx_packets.load(Relaxed),
            rx_bytes: peer.traffic.rx_bytes.load(Relaxed),
        }
    }

    fn counters(&self, snapshot: &Snapshot) -> BTreeMap<String, u64> {
        let kernel = self.kernel.counters().unwrap_or_else(|error| {
            warn!(%error, "cannot read the kernel's counters");
            Vec::new()
        });
        let network = &snapshot.counters;
        let network = [
            ("unknown_peers_refused", network.unknown_peers_refused),
            ("connections_refused", network.connections_refused),
            ("handshakes_refused", network.handshakes_refused),
            ("inbound_failures", network.inbound_failures),
            ("dial_failures", network.dial_failures),
            ("streams_refused", network.streams_refused),
        ];
        let dropped = (self.socket_drops)();
        let sockets = [
            ("socket_full", dropped.ring_full),
            ("socket_no_memory", dropped.no_memory),
            ("socket_dropped", dropped.other),
        ];
        let kernel = kernel.into_iter().map(|(reason, n)| (reason.name(), n));
        let named = kernel
            .chain(sockets)
            .chain(self.counters.snapshot())
            .chain(network);
        named.map(|(name, n)| (name.to_owned(), n)).collect()
    }
}

impl StatusSource for NodeStatus {
    fn status(&self) -> Status {
        let snapshot = self.network.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            peer_id: snapshot.local_peer.to_string(),
            device: DeviceStatus {
                name: self.device_name.clone(),
                index: self.device_index,
                mtu: self.device_mtu,
                addresses: self.device_addresses.iter().map(ToString::to_string).collect(),
            },
            listen: snapshot.listening.iter().map(ToString::to_string).collect(),
            hook: "clsact egress".to_owned(),
            sink: "ring buffer".to_owned(),
            pins: self.kernel.pin_directory().map(|path| path.display().to_string()),
            workers: self.workers.n_active.load(Relaxed),
            retired_workers: self.workers.n_retired.load(Relaxed),
            gateways: self.gateways.clone(),
            peers: self
                .peers
                .all()
                .iter()
                .map(|peer| self.peer(peer, &snapshot))
                .collect(),
            counters: self.counters(&snapshot),
        }
    }
}

#[cfg(test)]
mod tests {
    use router_common::reason::Reason;

    use super::*;

    #[test]
    fn the_readme_explains_every_counter_of_packets() {
        let readme = include_str!("../../../README.md");
        let counters = Counters::default();
        let names = Reason::ALL.into_iter().map(Reason::name);
        let sockets = ["socket_full", "socket_no_memory", "socket_dropped"];
        for name in names
            .chain(sockets)
            .chain(counters.snapshot().map(|(name, _)| name))
        {
            assert!(
                readme.contains(&format!("\n| `{name}` | ")),
                "{name} is not in the table"
            );
        }
    }
}
