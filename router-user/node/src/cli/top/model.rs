//! The answers of the node, and how fast they change.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::history::{ThroughputHistory, ThroughputPoint};
use crate::cli::peers;
use crate::cli::rates::per_second;
use crate::control::{
    ControlError, CounterKind, CounterList, CounterStatus, Flow, FlowList, PeerList, PeerState, PeerStatus,
    Status, StreamList, StreamStatus, WorkerList, WorkerStatus,
};

/// The answers of the node at one moment.
#[derive(Clone, Debug)]
pub(super) struct NodeSample {
    /// Time since the start of the view.
    pub(super) at: Duration,
    pub(super) status: Status,
    pub(super) peers: PeerList,
    pub(super) workers: WorkerList,
    pub(super) streams: StreamList,
    pub(super) counters: CounterList,
    /// Flows, if they were asked for.
    pub(super) flows: Option<FlowList>,
}

/// What is known of the node.
#[derive(Debug, Default)]
pub(super) struct Model {
    snapshot: Option<NodeSnapshot>,
    history: ThroughputHistory,
    trouble: Option<String>,
}

/// The last sample with its rates.
#[derive(Debug)]
pub(super) struct NodeSnapshot {
    pub(super) at: Duration,
    pub(super) status: Status,
    /// The peers, then those that are disabled.
    pub(super) peers: Vec<WithRates<PeerStatus, PeerRates>>,
    pub(super) workers: Vec<WithRates<WorkerStatus, WorkerRates>>,
    pub(super) streams: Vec<WithRates<StreamStatus, StreamRates>>,
    /// Counters of packets that went nowhere.
    pub(super) drops: Vec<WithRates<CounterStatus, Option<f64>>>,
    pub(super) flows: Option<FlowSnapshot>,
}

/// The last flows, which are asked for less often.
#[derive(Debug)]
pub(super) struct FlowSnapshot {
    pub(super) at: Duration,
    /// How many there are in all, as far as the node filters them.
    pub(super) n_live: u64,
    pub(super) flows: Vec<WithRates<Flow, FlowRates>>,
}

/// A value and its rates, which are `None` until it was seen twice.
#[derive(Debug)]
pub(super) struct WithRates<T, R> {
    pub(super) now: T,
    pub(super) rates: R,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PeerRates {
    pub(super) tx_bits: Option<f64>,
    pub(super) rx_bits: Option<f64>,
    pub(super) tx_frames: Option<f64>,
    pub(super) rx_frames: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WorkerRates {
    pub(super) bits: Option<f64>,
    pub(super) packets: Option<f64>,
    pub(super) wakeups: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StreamRates {
    pub(super) frames: Option<f64>,
    pub(super) refused: Option<f64>,
    pub(super) dropped: Option<f64>,
    pub(super) marked: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FlowRates {
    pub(super) tx_bits: Option<f64>,
    pub(super) rx_bits: Option<f64>,
    /// Of both directions.
    pub(super) packets: Option<f64>,
}

impl FlowRates {
    /// Returns the bits of both directions.
    pub(super) fn bits(&self) -> Option<f64> {
        Some(self.tx_bits? + self.rx_bits?)
    }
}

impl Model {
    /// Takes the answers of the node.
    pub(super) fn handle_sample(&mut self, sample: NodeSample) {
        self.trouble = None;
        let before = self.snapshot.take().filter(|before| before.is_same_run(&sample));
        let (from, to) = (before.as_ref().map(|before| before.at), sample.at);
        let snapshot = NodeSnapshot::new(sample, before);
        if let Some(from) = from {
            let sum = |of: fn(&PeerRates) -> Option<f64>| {
                let rates = snapshot.peers.iter().filter_map(|peer| of(&peer.rates));
                rates.sum::<f64>()
            };
            self.history.push(ThroughputPoint {
                from,
                to,
                tx_bits_per_second: sum(|rates| rates.tx_bits),
                rx_bits_per_second: sum(|rates| rates.rx_bits),
            });
        }
        self.snapshot = Some(snapshot);
    }

    /// Notes that the node did not answer; its earlier answers stay.
    pub(super) fn handle_failure(&mut self, error: &ControlError) {
        self.trouble = Some(error.to_string());
    }

    /// Returns the last answers of the node.
    pub(super) fn snapshot(&self) -> Option<&NodeSnapshot> {
        self.snapshot.as_ref()
    }

    /// Returns the throughput of the last minutes.
    pub(super) fn history(&self) -> &ThroughputHistory {
        &self.history
    }

    /// Returns why the node does not answer, if it has not answered since.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

impl NodeSnapshot {
    /// Returns whether counts can be compared: a node that was started again begins at 0.
    fn is_same_run(&self, sample: &NodeSample) -> bool {
        let (before, now) = (&self.status, &sample.status);
        before.peer_id == now.peer_id && before.uptime_seconds <= now.uptime_seconds
    }

    fn new(sample: NodeSample, before: Option<Self>) -> Self {
        let (over, before) = match before {
            Some(before) => (sample.at.saturating_sub(before.at), before.into_counts()),
            None => (Duration::ZERO, Counts::default()),
        };
        let rate = |before: Option<u64>, now| per_second(before, now, over);
        let peers = rated(
            peers::rows(&sample.peers),
            before.peers,
            peer_key,
            |before, now| {
                // What one carried that is disabled is counted no more.
                let before = before.filter(|_| now.state != PeerState::Disabled);
                let rate = |of: fn(&PeerStatus) -> u64| rate(before.map(of), of(now));
                PeerRates {
                    tx_bits: rate(|peer| peer.tx_bytes).map(bits),
                    rx_bits: rate(|peer| peer.rx_bytes).map(bits),
                    tx_frames: rate(|peer| peer.tx_frames),
                    rx_frames: rate(|peer| peer.rx_frames),
                }
            },
        );
        let workers = rated(
            sample.workers.workers,
            before.workers,
            worker_key,
            |before, now| {
                let rate = |of: fn(&WorkerStatus) -> u64| rate(before.map(of), of(now));
                WorkerRates {
                    bits: rate(|worker| worker.bytes).map(bits),
                    packets: rate(|worker| worker.packets),
                    wakeups: rate(|worker| worker.wakeups),
                }
            },
        );
        let streams = rated(
            sample.streams.streams,
            before.streams,
            stream_key,
            |before, now| {
                let rate = |of: fn(&StreamStatus) -> u64| rate(before.map(of), of(now));
                StreamRates {
                    frames: rate(|stream| stream.frames),
                    refused: rate(|stream| stream.refused),
                    dropped: rate(|stream| stream.dropped),
                    marked: rate(|stream| stream.marked),
                }
            },
        );
        let mut drops = sample.counters.counters;
        drops.retain(|counter| counter.kind == CounterKind::Drop);
        let drops = rated(drops, before.drops, drop_key, |before, now| {
            rate(before.map(|before| before.value), now.value)
        });
        let flows = match sample.flows {
            Some(flows) => Some(FlowSnapshot::new(flows, sample.at, before.flows)),
            None => before.flows,
        };
        Self {
            at: sample.at,
            status: sample.status,
            peers,
            workers,
            streams,
            drops,
            flows,
        }
    }

    fn into_counts(self) -> Counts {
        Counts {
            peers: unrated(self.peers),
            workers: unrated(self.workers),
            streams: unrated(self.streams),
            drops: unrated(self.drops),
            flows: self.flows,
        }
    }
}

impl FlowSnapshot {
    fn new(flows: FlowList, at: Duration, before: Option<Self>) -> Self {
        let (over, before) = match before {
            Some(before) => (at.saturating_sub(before.at), unrated(before.flows)),
            None => (Duration::ZERO, Vec::new()),
        };
        let rows = rated(flows.flows, before, flow_key, |before, now| {
            let rate = |of: fn(&Flow) -> u64| per_second(before.map(of), of(now), over);
            FlowRates {
                tx_bits: rate(|flow| flow.bytes).map(bits),
                rx_bits: rate(|flow| flow.rx_bytes).map(bits),
                packets: rate(Flow::all_packets),
            }
        });
        Self {
            at,
            n_live: flows.matched,
            flows: rows,
        }
    }
}

/// The counts of a snapshot, to compare the next one with.
#[derive(Default)]
struct Counts {
    peers: Vec<PeerStatus>,
    workers: Vec<WorkerStatus>,
    streams: Vec<StreamStatus>,
    drops: Vec<CounterStatus>,
    flows: Option<FlowSnapshot>,
}

/// Rates each value by the earlier value with the same key.
fn rated<T, R, K: Hash + Eq>(
    now: Vec<T>,
    before: Vec<T>,
    key: fn(&T) -> K,
    rates: impl Fn(Option<&T>, &T) -> R,
) -> Vec<WithRates<T, R>> {
    let before: HashMap<K, T> = before.into_iter().map(|it| (key(&it), it)).collect();
    now.into_iter()
        .map(|now| WithRates {
            rates: rates(before.get(&key(&now)), &now),
            now,
        })
        .collect()
}

fn unrated<T, R>(rated: Vec<WithRates<T, R>>) -> Vec<T> {
    rated.into_iter().map(|it| it.now).collect()
}

fn bits(bytes: f64) -> f64 {
    bytes * 8.0
}

fn peer_key(peer: &PeerStatus) -> String {
    peer.id.clone()
}

fn worker_key(worker: &WorkerStatus) -> u32 {
    worker.id
}

fn stream_key(stream: &StreamStatus) -> (String, u32) {
    (stream.peer.clone(), stream.index)
}

fn drop_key(counter: &CounterStatus) -> String {
    counter.name.clone()
}

fn flow_key(flow: &Flow) -> (u8, IpAddr, u16, IpAddr, u16) {
    (
        flow.protocol.0,
        flow.source,
        flow.source_port,
        flow.destination,
        flow.destination_port,
    )
}
