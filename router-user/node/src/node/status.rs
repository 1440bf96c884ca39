//! Gathers from every part of the node what an operator sees.

mod flow_list;
mod kernel_features;
mod memory;
mod parts;
mod reach;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ipnet::IpNet;

use super::capture::TooMany;
use super::counters::{NetworkCounter, SocketCounter};
use super::host::HostReport;
use super::peers::ConfiguredPeer;
use crate::config::is_metered;
use crate::config::{Config, Invite, PeerSection, for_others, own_prefixes, peers_bytes};
use crate::control::{
    self, AddressOrigin, CaptureEncoder, CaptureQuery, CaptureStream, CounterKind, CounterOrigin,
    CounterStatus, DeviceStatus, DisabledPeer, EventList, FlowList, FlowQuery, InviteStatus, MemoryStatus,
    PeerAddress, PeerLink, PeerList, PeerState, PeerStatus, QrCode, RouteList, RouteSource, RouteStatus,
    Source, SourceError, Status, StreamList, StreamState, StreamStatus, TrafficTotals, WorkerList,
    WorkerState, WorkerStatus,
};
pub(crate) use memory::memory_status;
pub(super) use parts::StatusParts;
use parts::failed;
use reach::{ReachConfig, absent, age};
use router_common::peer::NO_PEER;
use router_common::reason::ReasonKind;
use stream_router::p2p::{
    ConnectionDirection, ConnectionSnapshot, FoundBy, NetworkSnapshot, PeerId, PeerSnapshot, TransportKind,
};
use stream_router_engine::capture_filter::CaptureFilter;

const HOOK: &str = "clsact egress";
const HOOK_REASON: &str =
    "the one hook that sees what is routed to the device, and can refuse it so that TCP holds back";
const SINK: &str = "ring buffer";
const SINK_REASON: &str = "AF_XDP sockets are for gateways: a TUN device has no receive queue";

/// Answers the requests of the control socket and of the metrics server for the node.
pub(super) struct NodeStatus {
    parts: StatusParts,
    started: Instant,
    name: Option<String>,
    device_name: String,
    device_mtu: u32,
    device_addresses: Vec<IpNet>,
    /// Whether it is configured to listen anywhere.
    listens: bool,
    relays: bool,
    reach: ReachConfig,
    memory: MemoryStatus,
}

impl NodeStatus {
    pub(super) fn new(config: &Config, parts: StatusParts) -> Self {
        Self {
            parts,
            started: Instant::now(),
            name: config.node().name().map(str::to_owned),
            device_name: config.device().name().to_owned(),
            device_mtu: config.device().mtu(),
            device_addresses: config.device().addresses().to_vec(),
            listens: !config.node().listen().is_empty(),
            relays: config.relay().serve(),
            reach: ReachConfig::new(config),
            memory: memory_status(config),
        }
    }

    /// Returns the device as the kernel has it, or as it is wanted until somebody has looked.
    fn device(&self, host: &HostReport) -> DeviceStatus {
        let (name, mtu, addresses) = match &host.device {
            Some(seen) => (&seen.name, seen.mtu, &seen.addresses),
            None => (&self.device_name, self.device_mtu, &self.device_addresses),
        };
        DeviceStatus {
            name: name.clone(),
            index: self.parts.device_index,
            mtu,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Source for NodeStatus {
    fn status(&self) -> Status {
        let network = &self.parts.network;
        let views = self.parts.workers.views();
        let n_active = views.values().filter(|view| view.active).count();
        let peers = self.parts.data_path.peers.load();
        let host = self.parts.host.report();
        let gateways = self.parts.gateways.status();
        let (listening, reach) = (network.listening(), network.reach());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            peer_id: network.local_peer().to_string(),
            name: self.name.clone(),
            device: self.device(&host),
            listen: listening.iter().map(ToString::to_string).collect(),
            port_mapping: self.parts.port_mapping.status(Instant::now(), &listening, &reach),
            reach: self.reach.status(&reach, &listening, &network.mapped(), |peer| {
                peers.configured(peer)?.name.clone()
            }),
            hook: match host.matter_with("hook") {
                None => HOOK.to_owned(),
                Some(matter) => format!("none: {matter}"),
            },
            hook_reason: HOOK_REASON.to_owned(),
            sink: SINK.to_owned(),
            sink_reason: SINK_REASON.to_owned(),
            pins: self
                .parts
                .kernel
                .programs
                .pin_directory()
                .map(|path| path.display().to_string()),
            workers: n_active as u32,
            retired_workers: (views.len() - n_active) as u32,
            data_threads: self.parts.runtimes.names().collect(),
            configured_peers: peers.all().len() as u32,
            connected_peers: peers.n_connected() as u32,
            disabled_peers: peers.disabled().len() as u32,
            gateways: gateways.clone(),
            host: host.status(Instant::now()),
            memory: MemoryStatus {
                peers_bytes: peers_bytes(peers.all().len(), peers.n_prefixes()),
                ..self.memory.clone()
            },
            kernel: kernel_features::look(
                &self.parts.kernel.offloads,
                self.parts.kernel.programs.pin_directory(),
                &gateways,
            ),
        }
    }

    fn peers(&self) -> PeerList {
        let snapshot = self.parts.network.snapshot();
        let peers = self.parts.data_path.peers.load();
        let known = KnownPeers::of(&snapshot);
        PeerList {
            peers: peers
                .all()
                .iter()
                .map(|peer| {
                    let status = peer_status(peer, known.get(peer));
                    self.reach
                        .complete(status, peer, known.get(peer), &snapshot.reach)
                })
                .collect(),
            disabled: peers.disabled().iter().map(disabled_peer).collect(),
        }
    }

    fn traffic(&self) -> TrafficTotals {
        let peers = self.parts.data_path.peers.load();
        let mut totals = TrafficTotals::default();
        for traffic in peers.all().iter().map(|configured| &configured.peer.traffic) {
            totals.tx_frames += traffic.tx_packets.load(Relaxed);
            totals.tx_bytes += traffic.tx_bytes.load(Relaxed);
            totals.rx_frames += traffic.rx_packets.load(Relaxed);
            totals.rx_bytes += traffic.rx_bytes.load(Relaxed);
        }
        totals
    }

    fn flows(&self, query: &FlowQuery) -> Result<FlowList, SourceError> {
        flow_list::read(&self.parts, self.memory.max_flows, query)
    }

    fn workers(&self) -> WorkerList {
        let worker = |(id, view): (u32, super::worker_pool::WorkerView)| WorkerStatus {
            id,
            state: if view.active {
                WorkerState::Active
            } else {
                WorkerState::Retired
            },
            thread: self.parts.runtimes.name_of(id),
            ring_bytes: view.gauge.capacity_bytes() as u64,
            fill: view.gauge.fill(),
            sockets: view.n_sockets,
            flows: view.n_flows,
            packets: view.meter.n_packets.load(Relaxed),
            bytes: view.meter.n_bytes.load(Relaxed),
            wakeups: view.meter.n_wakeups.load(Relaxed),
        };
        WorkerList {
            workers: self.parts.workers.views().into_iter().map(worker).collect(),
        }
    }

    fn invite(&self) -> InviteStatus {
        let snapshot = self.parts.network.snapshot();
        let report = self.parts.host.report();
        let device = match &report.device {
            Some(seen) => &seen.addresses,
            None => &self.device_addresses,
        };
        invite_status(
            &snapshot,
            self.name.as_deref(),
            (self.listens, self.relays),
            device,
        )
    }

    fn events(&self) -> EventList {
        self.parts.events.list()
    }

    fn streams(&self) -> StreamList {
        let snapshot = self.parts.network.snapshot();
        let peers = self.parts.data_path.peers.load();
        let known = KnownPeers::of(&snapshot);
        let streams = peers
            .all()
            .iter()
            .flat_map(|peer| stream_statuses(peer, known.get(peer)));
        StreamList {
            streams: streams.collect(),
        }
    }

    fn counters(&self) -> Result<control::CounterList, SourceError> {
        let dropped = self.parts.gateways.drops();
        let network = self.parts.network.counters();
        let kernel = self.parts.kernel.counters.read().map_err(failed)?.into_iter();
        let kernel = kernel.map(|(reason, n)| {
            let (name, kind, meaning) = (reason.name(), reason.kind(), reason.meaning());
            counter_status(CounterOrigin::Kernel, name, kind, meaning, n)
        });
        let sockets = SocketCounter::ALL.into_iter().map(|counter| {
            let (name, kind, meaning) = (counter.name(), counter.kind(), counter.meaning());
            counter_status(CounterOrigin::Socket, name, kind, meaning, counter.of(&dropped))
        });
        let user = self.parts.data_path.counters.snapshot().map(|(counter, n)| {
            let (name, kind, meaning) = (counter.name(), counter.kind(), counter.meaning());
            counter_status(CounterOrigin::User, name, kind, meaning, n)
        });
        let network = NetworkCounter::ALL.into_iter().map(|counter| {
            let (name, kind, meaning) = (counter.name(), counter.kind(), counter.meaning());
            counter_status(CounterOrigin::Network, name, kind, meaning, counter.of(&network))
        });
        Ok(control::CounterList {
            counters: kernel.chain(sockets).chain(user).chain(network).collect(),
        })
    }

    fn routes(&self) -> Result<RouteList, SourceError> {
        let prefixes = self.parts.kernel.prefixes.read().map_err(failed)?;
        let route = |(prefix, index): (IpNet, u32)| {
            let (peer, peer_name) = self.parts.peer(index).unzip();
            RouteStatus {
                prefix,
                peer,
                peer_name: peer_name.flatten(),
                source: if index == NO_PEER {
                    RouteSource::Host
                } else {
                    RouteSource::AllowedIps
                },
            }
        };
        let mut routes: Vec<_> = prefixes.into_iter().map(route).collect();
        routes.sort_by_key(|route| route.prefix);
        Ok(RouteList { routes })
    }

    fn capture(&self, query: &CaptureQuery) -> Result<CaptureStream, SourceError> {
        let filter = CaptureFilter::parse(&query.filter);
        let filter = filter.map_err(|error| SourceError::Query(error.to_string()))?;
        let peer = |end: &String| self.parts.find_peer(end).map(|peer| peer.id);
        let filter = filter.map(|filter| filter.resolve(peer)).transpose()?;
        let peers = self.parts.data_path.peers.load();
        let named = peers.all().iter();
        let names = named.filter_map(|configured| Some((configured.peer.id, configured.name.clone()?)));
        let encoder = CaptureEncoder::new(&self.device_name, query.snaplen, names.collect());
        let opened = self.parts.data_path.taps.open(query, filter, encoder);
        opened.map_err(|TooMany| {
            SourceError::Busy("as many captures run as may; one of them has to end first".to_owned())
        })
    }
}

/// Returns the invite to a node with these addresses inside the VPN: nothing that its status does not say.
fn invite_status(
    snapshot: &NetworkSnapshot,
    name: Option<&str>,
    (listens, relays): (bool, bool),
    device: &[IpNet],
) -> InviteStatus {
    let addresses = for_others(snapshot.mapped.clone(), snapshot.listening.clone(), device);
    if listens && addresses.is_empty() {
        let why = "the node listens at no address that others can dial; `stream-router invite --addresses` names one";
        return InviteStatus::without(why.to_owned());
    }
    let invite = Invite::new(snapshot.local_peer, addresses, own_prefixes(device))
        .map(|invite| invite.with_relaying(relays));
    let named = |invite: Invite| match name {
        Some(name) => invite.with_name(name.to_owned()),
        None => Ok(invite),
    };
    match invite.and_then(named) {
        Err(why) => InviteStatus::without(why.to_string()),
        Ok(invite) => InviteStatus {
            qr: QrCode::of(&invite.to_string()),
            addresses: invite.addresses().iter().map(ToString::to_string).collect(),
            allowed_ips: invite.allowed_ips().iter().map(ToString::to_string).collect(),
            invite: Some(invite.to_string()),
            problem: None,
        },
    }
}

/// What the network knows of each peer.
struct KnownPeers<'a>(HashMap<PeerId, &'a PeerSnapshot>);

impl<'a> KnownPeers<'a> {
    fn of(snapshot: &'a NetworkSnapshot) -> Self {
        let peers = snapshot.peers.iter();
        Self(peers.map(|known| (known.peer, known)).collect())
    }

    fn get(&self, configured: &ConfiguredPeer) -> Option<&'a PeerSnapshot> {
        self.0.get(&configured.peer.id).copied()
    }
}

/// Returns the status of a peer, by what the network knows of it.
fn peer_status(configured: &ConfiguredPeer, network: Option<&PeerSnapshot>) -> PeerStatus {
    let peer = &configured.peer;
    let connections = network.map_or(&[][..], |network| &network.connections);
    let oldest = connections.first();
    let newest = connections.iter().map(|connection| connection.since).max();
    // A connection stands a moment before packets go over it, and one that is left a moment longer.
    let state = match peer.connected.load(Relaxed) {
        true => PeerState::Connected,
        false => absent(configured, !configured.addresses.is_empty()),
    };
    let (tx_bytes, rx_bytes) = peer.traffic.bytes();
    let mean = peer.traffic.recent.mean(Instant::now(), (tx_bytes, rx_bytes));
    PeerStatus {
        id: peer.id.to_string(),
        name: configured.name.clone(),
        comment: configured.comment.clone(),
        state,
        address: oldest.map(|connection| connection.address.to_string()),
        transport: oldest.map(transport),
        path: oldest.map(path),
        direction: oldest.map(direction),
        rtt_ms: oldest
            .and_then(|connection| connection.rtt)
            .map(|rtt| rtt.as_secs_f64() * 1e3),
        handshake_age_seconds: newest.map(age),
        connections: connections.len() as u32,
        links: connections.iter().map(link).collect(),
        streams: peer.traffic.n_inbound_streams.load(Relaxed) + peer.lanes.n_open(),
        allowed_ips: configured.allowed_ips.iter().map(ToString::to_string).collect(),
        rate_bytes_per_second: peer.lanes.pacer().rate().map(NonZeroU32::get),
        tx_frames: peer.traffic.tx_packets.load(Relaxed),
        tx_bytes,
        rx_frames: peer.traffic.rx_packets.load(Relaxed),
        rx_bytes,
        tx_bytes_per_second: mean.map(|(tx, _)| tx),
        rx_bytes_per_second: mean.map(|(_, rx)| rx),
        addresses: peer_addresses(configured, network),
        last_dial_error: network.and_then(|network| network.last_dial_error.clone()),
        refuses: network.is_some_and(|network| network.refuses),
        relayed_because: None,
        direct_tries: Vec::new(),
        direct_tried_age_seconds: None,
    }
}

fn link(connection: &ConnectionSnapshot) -> PeerLink {
    let uplink = connection.uplink.as_ref();
    PeerLink {
        address: connection.address.to_string(),
        transport: transport(connection),
        direction: direction(connection),
        uplink: uplink.map(|uplink| uplink.by.to_string()),
        metered: uplink.is_some_and(is_metered),
        rtt_ms: connection.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        loss: connection.loss,
        age_seconds: connection.since.elapsed().unwrap_or_default().as_secs_f64(),
        answers: !connection.is_silent,
        leaving: connection.is_leaving,
    }
}

/// Returns what is known of a peer that is not enabled: what the configuration says.
fn disabled_peer(peer: &PeerSection) -> DisabledPeer {
    DisabledPeer {
        id: peer.id().to_string(),
        name: peer.name().map(str::to_owned),
        comment: peer.comment().map(str::to_owned),
        allowed_ips: peer.allowed_ips().iter().map(ToString::to_string).collect(),
        addresses: peer.addresses().iter().map(ToString::to_string).collect(),
    }
}

/// Returns the addresses of a peer: those that are configured, then those that were found.
fn peer_addresses(configured: &ConfiguredPeer, network: Option<&PeerSnapshot>) -> Vec<PeerAddress> {
    let given = configured.addresses.iter();
    let given = given.map(|address| (address, AddressOrigin::Configured));
    let found = network.into_iter().flat_map(|network| &network.found);
    let found = found.map(|found| match found.by {
        FoundBy::Mdns => (&found.address, AddressOrigin::Mdns),
        FoundBy::Dht => (&found.address, AddressOrigin::Dht),
    });
    let failed = network.map_or(&[][..], |network| &network.failed);
    let all = given.chain(found).map(|(address, origin)| {
        let failed = failed.iter().find(|failed| failed.address == *address);
        PeerAddress {
            address: address.to_string(),
            origin,
            last_dial_error: failed.map(|failed| failed.error.clone()),
            last_dial_error_age_seconds: failed.map(|failed| age(failed.at)),
        }
    });
    all.collect()
}

/// Returns the status of the streams to a peer that take new flows, are open, or have something to send.
fn stream_statuses<'a>(
    configured: &'a ConfiguredPeer,
    network: Option<&PeerSnapshot>,
) -> impl Iterator<Item = StreamStatus> + use<'a> {
    let peer = &configured.peer;
    let transport = network
        .and_then(|network| network.connections.first())
        .map(transport);
    let n_active = peer.lanes.n_active();
    (0..).zip(peer.lanes.all()).filter_map(move |(index, lane)| {
        let (open, active) = (lane.open.load(Relaxed), index < n_active);
        let (queued_bytes, pressed) = lane.outbox.fill();
        (active || open || queued_bytes > 0).then(|| StreamStatus {
            peer: peer.id.to_string(),
            peer_name: configured.name.clone(),
            index,
            state: if active {
                StreamState::Active
            } else {
                StreamState::Retired
            },
            open,
            transport: transport.filter(|_| open),
            frames: lane.n_offered.load(Relaxed),
            queued_bytes: queued_bytes as u64,
            pressed,
            refused: lane.n_refused.load(Relaxed),
            dropped: lane.n_aged.load(Relaxed),
            marked: lane.n_marked.load(Relaxed),
        })
    })
}

fn transport(connection: &ConnectionSnapshot) -> control::Transport {
    match connection.transport {
        TransportKind::Tcp => control::Transport::Tcp,
        TransportKind::Quic => control::Transport::Quic,
        TransportKind::Relay => control::Transport::Relay,
    }
}

fn path(connection: &ConnectionSnapshot) -> control::PeerPath {
    match connection.transport {
        TransportKind::Relay => control::PeerPath::Relayed,
        _ if connection.is_punched => control::PeerPath::Punched,
        TransportKind::Tcp | TransportKind::Quic => control::PeerPath::Direct,
    }
}

fn direction(connection: &ConnectionSnapshot) -> control::Direction {
    match connection.direction {
        ConnectionDirection::Inbound => control::Direction::Inbound,
        ConnectionDirection::Outbound => control::Direction::Outbound,
    }
}

fn counter_status(
    origin: CounterOrigin,
    name: &str,
    kind: ReasonKind,
    meaning: &str,
    value: u64,
) -> CounterStatus {
    CounterStatus {
        name: name.to_owned(),
        value,
        origin,
        kind: match kind {
            ReasonKind::Drop => CounterKind::Drop,
            ReasonKind::Event => CounterKind::Event,
        },
        meaning: meaning.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests;
