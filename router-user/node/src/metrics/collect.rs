//! The node's metrics, collected on request, so that nothing is counted twice and no packet waits for it.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::family::{self, PREFIX, PROCESS_PREFIX, Samples};
use super::process::Process;
use super::{Health, MetricsSources};
use crate::control::{
    CounterKind, CounterList, HostState, PeerList, PeerState, PeerStatus, SourceError, Status, StreamList,
    StreamStatus, WorkerList, WorkerState,
};

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError {
    #[error("the node's counters cannot be read")]
    Source(#[from] SourceError),
    #[error("/proc/self cannot be read")]
    Process(#[source] std::io::Error),
    #[error("the metrics cannot be written")]
    Encode(#[from] fmt::Error),
}

/// Returns all metrics as OpenMetrics text.
pub(super) fn open_metrics(sources: &MetricsSources) -> Result<String, CollectError> {
    let mut text = String::new();
    let mut add = |prefix, collector: Box<dyn Collector>| {
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(collector);
        encode_registry(&mut text, &registry)
    };
    add(PREFIX, Box::new(NodeMetrics::take(sources)?))?;
    add(
        PROCESS_PREFIX,
        Box::new(Process::read().map_err(CollectError::Process)?),
    )?;
    encode_registry(&mut text, &sources.others)?;
    encode_eof(&mut text)?;
    Ok(text)
}

impl MetricsSources {
    /// Returns all metrics as OpenMetrics text.
    ///
    /// # Errors
    /// The node's counters or `/proc` cannot be read.
    pub fn open_metrics(&self) -> Result<String, Box<dyn std::error::Error>> {
        Ok(open_metrics(self)?)
    }
}

/// The state of the node at one moment.
#[derive(Debug)]
struct NodeMetrics {
    status: Status,
    peers: PeerList,
    workers: WorkerList,
    streams: StreamList,
    counters: CounterList,
    health: Health,
    max_flows: u32,
}

impl NodeMetrics {
    fn take(sources: &MetricsSources) -> Result<Self, SourceError> {
        Ok(Self {
            status: sources.source.status(),
            peers: sources.source.peers(),
            workers: sources.source.workers(),
            streams: sources.source.streams(),
            counters: sources.source.counters()?,
            health: (sources.health)(),
            max_flows: sources.max_flows,
        })
    }

    fn node(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        family::BUILD.encode(to, |add| add.info(&[("version", status.version.as_str())]))?;
        family::NODE.encode(to, |add| {
            let mut labels = of_peer(&status.peer_id, status.name.as_deref());
            labels.push(("device", status.device.name.as_str()));
            add.info(&labels)
        })?;
        family::GATEWAY.encode(to, |add| {
            let mut gateways = status.gateways.iter();
            gateways.try_for_each(|gateway| {
                add.info(&[
                    ("interface", gateway.interface.as_str()),
                    ("mode", gateway.mode.as_str()),
                    ("sink", gateway.sink.as_str()),
                ])
            })
        })?;
        let mapping = &status.port_mapping;
        family::PORT_MAPPING.encode(to, |add| add.info(&[("state", mapping.state.name())]))?;
        family::MAPPED_PORTS.encode_one(to, Some(mapping.mapped.len() as u64))?;
        let served = status.reach.serves.as_ref();
        family::RELAY_RESERVATIONS.encode_one(to, served.map(|served| served.reservations))?;
        family::RELAY_CIRCUITS.encode_one(to, served.map(|served| served.circuits))?;
        family::RELAY_TRANSFER.encode_one(to, served.map(|served| served.bytes))?;
        family::UPTIME.encode_one(to, Some(status.uptime_seconds))?;
        family::HEALTH_CHECK.encode(to, |add| {
            let mut checks = self.health.checks.iter();
            checks.try_for_each(|check| add.gauge(&[("check", check.name.as_str())], check.passes()))
        })?;
        self.host(to)?;
        let n_flows = self.workers.workers.iter().map(|worker| u64::from(worker.flows));
        family::FLOWS.encode_one(to, Some(n_flows.sum::<u64>()))?;
        family::FLOWS_LIMIT.encode_one(to, Some(self.max_flows))?;
        let mut counters = |family: family::Family, kind| {
            family.encode(to, |add| {
                let mut of_kind = self
                    .counters
                    .counters
                    .iter()
                    .filter(|counter| counter.kind == kind);
                of_kind.try_for_each(|counter| {
                    let origin = counter.origin.to_string();
                    let labels = [("origin", origin.as_str()), ("reason", counter.name.as_str())];
                    add.counter(&labels, counter.value)
                })
            })
        };
        counters(family::DROPS, CounterKind::Drop)?;
        counters(family::EVENTS, CounterKind::Event)
    }

    fn host(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let host = &self.status.host;
        let mut counts = BTreeMap::new();
        for thing in &host.things {
            for state in [HostState::Ok, HostState::Wrong, HostState::Conflict] {
                let n = counts
                    .entry((thing.kind.as_str(), state.to_string()))
                    .or_insert(0_u64);
                *n += u64::from(thing.state == state);
            }
        }
        family::HOST_THINGS.encode(to, |add| {
            let mut counts = counts.iter();
            counts.try_for_each(|((kind, state), n)| {
                add.gauge(&[("check", *kind), ("state", state.as_str())], *n)
            })
        })?;
        family::HOST_PUT_BACK.encode_one(to, Some(host.put_back))
    }

    fn peers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let peers = &self.peers.peers;
        family::PEERS.encode(to, |add| {
            let states = [
                PeerState::Connected,
                PeerState::Connecting,
                PeerState::Disconnected,
                PeerState::Idle,
            ];
            states.into_iter().try_for_each(|state| {
                let n = peers.iter().filter(|peer| peer.state == state).count();
                add.gauge(&[("state", state.to_string())], n as u64)
            })
        })?;
        macro_rules! each {
            ($peers:ident, $family:ident, $add:ident, |$peer:ident| $value:expr) => {
                family::$family.encode(to, |add| {
                    $peers.iter().try_for_each(|$peer| match $value {
                        Some(value) => add.$add(&of_peer(&$peer.id, $peer.name.as_deref()), value),
                        None => Ok(()),
                    })
                })
            };
        }
        each!(peers, PEER_CONNECTED, gauge, |peer| Some(
            peer.state == PeerState::Connected
        ))?;
        // Of the thousands that a large mesh is configured for, most are never met.
        let met: Vec<_> = peers.iter().filter(|peer| was_met(peer)).collect();
        each!(met, PEER_RTT, gauge, |peer| peer
            .rtt_ms
            .map(|milliseconds| milliseconds / 1e3))?;
        family::PEER_LOSS.encode(to, |add| {
            met.iter().try_for_each(|peer| {
                worst_losses(peer).into_iter().try_for_each(|(uplink, loss)| {
                    let mut labels = of_peer(&peer.id, peer.name.as_deref());
                    labels.extend(uplink.map(|uplink| ("uplink", uplink)));
                    add.gauge(&labels, loss)
                })
            })
        })?;
        each!(met, PEER_HANDSHAKE_AGE, gauge, |peer| peer.handshake_age_seconds)?;
        each!(met, PEER_CONNECTIONS, gauge, |peer| Some(peer.connections))?;
        each!(met, PEER_STREAMS, gauge, |peer| Some(peer.streams))?;
        let mut by_uplink = BTreeMap::new();
        let links = met
            .iter()
            .flat_map(|peer| &peer.links)
            .filter(|link| link.answers);
        for uplink in links.filter_map(|link| link.uplink.as_deref()) {
            *by_uplink.entry(uplink).or_insert(0_u64) += 1;
        }
        family::UPLINK_CONNECTIONS.encode(to, |add| {
            let mut by_uplink = by_uplink.iter();
            by_uplink.try_for_each(|(uplink, n)| add.gauge(&[("uplink", *uplink)], *n))
        })?;
        let mut both = |family: family::Family, values: fn(&PeerStatus) -> (u64, u64)| {
            family.encode(to, |add: &mut Samples<'_>| {
                met.iter().try_for_each(|peer| {
                    let (sent, received) = values(peer);
                    let labels = |direction| {
                        let mut labels = of_peer(&peer.id, peer.name.as_deref());
                        labels.push(("direction", direction));
                        labels
                    };
                    add.counter(&labels("tx"), sent)?;
                    add.counter(&labels("rx"), received)
                })
            })
        };
        both(family::PEER_FRAMES, |peer| (peer.tx_frames, peer.rx_frames))?;
        both(family::PEER_TRAFFIC, |peer| (peer.tx_bytes, peer.rx_bytes))
    }

    fn workers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let workers = &self.workers.workers;
        family::WORKERS.encode(to, |add| {
            let states = [WorkerState::Active, WorkerState::Retired];
            states.into_iter().try_for_each(|state| {
                let n = workers.iter().filter(|worker| worker.state == state).count();
                add.gauge(&[("state", state.to_string())], n as u64)
            })
        })?;
        macro_rules! each {
            ($family:ident, $add:ident, $field:ident) => {
                family::$family.encode(to, |add| {
                    let mut workers = workers.iter();
                    workers.try_for_each(|worker| add.$add(&[("worker", worker.id)], worker.$field))
                })
            };
        }
        each!(WORKER_FILL, gauge, fill)?;
        each!(WORKER_RING, gauge, ring_bytes)?;
        each!(WORKER_FLOWS, gauge, flows)?;
        each!(WORKER_PACKETS, counter, packets)?;
        each!(WORKER_DRAINED, counter, bytes)?;
        each!(WORKER_WAKEUPS, counter, wakeups)
    }

    fn streams(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        macro_rules! each {
            ($family:ident, $add:ident, $field:ident) => {
                family::$family.encode(to, |add| {
                    let mut used = self
                        .streams
                        .streams
                        .iter()
                        .filter(|stream| was_used(stream));
                    used.try_for_each(|stream| {
                        let index = stream.index.to_string();
                        let mut labels = of_peer(&stream.peer, stream.peer_name.as_deref());
                        labels.push(("stream", index.as_str()));
                        add.$add(&labels, stream.$field)
                    })
                })
            };
        }
        each!(STREAM_OPEN, gauge, open)?;
        each!(STREAM_PRESSED, gauge, pressed)?;
        each!(STREAM_QUEUED, gauge, queued_bytes)?;
        each!(STREAM_FRAMES, counter, frames)?;
        each!(STREAM_REFUSED, counter, refused)?;
        each!(STREAM_DROPPED, counter, dropped)?;
        each!(STREAM_MARKED, counter, marked)
    }
}

/// Says whether a peer is connected, or anything went to it or came from it.
fn was_met(peer: &PeerStatus) -> bool {
    peer.connections > 0 || peer.tx_frames > 0 || peer.rx_frames > 0
}

/// Returns the largest share of lost packets on the connections of a peer by each uplink.
fn worst_losses(peer: &PeerStatus) -> BTreeMap<Option<&str>, f64> {
    let mut worst = BTreeMap::new();
    for link in peer.links.iter().filter(|link| !link.leaving) {
        if let Some(loss) = link.loss {
            let known = worst.entry(link.uplink.as_deref()).or_insert(loss);
            *known = loss.max(*known);
        }
    }
    worst
}

/// Says whether a stream is open, or was given anything.
fn was_used(stream: &StreamStatus) -> bool {
    stream.open || stream.frames > 0
}

/// Returns the labels of a node: its id, and its name if it has one.
fn of_peer<'a>(id: &'a str, name: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let name = name.map(|name| ("name", name));
    [("peer", id)].into_iter().chain(name).collect()
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.node(&mut encoder)?;
        self.peers(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.streams(&mut encoder)
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        family::CPU.encode_one(to, Some(self.cpu_seconds))?;
        family::RESIDENT_MEMORY.encode_one(to, Some(self.resident_bytes))?;
        family::OPEN_FDS.encode_one(to, Some(self.n_open_fds))?;
        family::MAX_FDS.encode_one(to, self.max_fds)?;
        family::THREADS.encode_one(to, Some(self.n_threads))?;
        family::START_TIME.encode_one(to, Some(self.start_time_seconds))
    }
}
