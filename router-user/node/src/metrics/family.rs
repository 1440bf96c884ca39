//! What is exported, family by family: names, units and texts in one place.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Prefix of the names of the node's own metrics.
pub(super) const PREFIX: &str = "stream_router";

/// Prefix of the names of the process metrics, which are the same for every program.
pub(super) const PROCESS_PREFIX: &str = "process";

/// A metric family: its name without prefix, unit and suffix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    name: &'static str,
    unit: Option<&'static str>,
    kind: MetricType,
    help: &'static str,
}

/// Takes the samples of one family.
pub(super) struct Samples<'a>(MetricEncoder<'a>);

/// The number of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    /// A whole number.
    Integer(u64),
    /// Any number.
    Float(f64),
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        unit: None,
        kind: MetricType::Gauge,
        help,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        kind: MetricType::Counter,
        ..gauge(name, help)
    }
}

const fn info(name: &'static str, help: &'static str) -> Family {
    Family {
        kind: MetricType::Info,
        ..gauge(name, help)
    }
}

impl Family {
    const fn of(self, unit: &'static str) -> Self {
        Self {
            unit: Some(unit),
            ..self
        }
    }

    /// Writes the family with the samples that `samples` adds.
    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        samples: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = self.unit.map(|unit| Unit::Other(unit.to_owned()));
        let metric = encoder.encode_descriptor(self.name, self.help, unit.as_ref(), self.kind)?;
        samples(&mut Samples(metric))
    }

    /// Writes the family with one sample without labels, if there is one.
    pub(super) fn encode_one(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        value: Option<impl Into<Number>>,
    ) -> fmt::Result {
        self.encode(encoder, |samples| match (value.map(Into::into), self.kind) {
            (None, _) => Ok(()),
            (Some(value), MetricType::Counter) => add_counter(&mut samples.0, value),
            (Some(value), _) => add_gauge(&mut samples.0, value),
        })
    }
}

impl Samples<'_> {
    /// Adds a gauge.
    pub(super) fn gauge(&mut self, labels: &impl EncodeLabelSet, value: impl Into<Number>) -> fmt::Result {
        add_gauge(&mut self.0.encode_family(labels)?, value.into())
    }

    /// Adds a counter.
    pub(super) fn counter(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        add_counter(&mut self.0.encode_family(labels)?, value.into())
    }

    /// Adds an info.
    pub(super) fn info(&mut self, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0.encode_info(labels)
    }
}

fn add_gauge(metric: &mut MetricEncoder<'_>, value: Number) -> fmt::Result {
    match value {
        Number::Integer(value) => metric.encode_gauge(&value),
        Number::Float(value) => metric.encode_gauge(&value),
    }
}

fn add_counter(metric: &mut MetricEncoder<'_>, value: Number) -> fmt::Result {
    match value {
        Number::Integer(value) => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Number::Float(value) => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// Metrics of the node.
pub(super) const BUILD: Family = info("build", "Version of the program.");
pub(super) const NODE: Family = info("node", "The node's own peer id and the name of its device.");
pub(super) const GATEWAY: Family = info(
    "gateway",
    "A gateway interface, by where its packets are captured and how they reach the workers.",
);
pub(super) const PORT_MAPPING: Family = info(
    "port_mapping",
    "Whether a router forwards ports to this node, or why not.",
);
pub(super) const MAPPED_PORTS: Family = gauge("mapped_ports", "Ports that a router forwards to this node.");
pub(super) const RELAY_RESERVATIONS: Family = gauge(
    "relay_reservations",
    "Places that peers have at this node as a relay.",
);
pub(super) const RELAY_CIRCUITS: Family = gauge(
    "relay_circuits",
    "Connections between peers that this node relays.",
);
pub(super) const RELAY_TRANSFER: Family = counter(
    "relay_transfer",
    "Bytes that this node has relayed between peers.",
)
.of("bytes");
pub(super) const UPTIME: Family = gauge("uptime", "Time since the node started.").of("seconds");
pub(super) const HEALTH_CHECK: Family = gauge("health_check", "Whether a check of /health passes: 1 or 0.");
pub(super) const HOST_THINGS: Family = gauge(
    "host_things",
    "What the node wants of the host, by kind, and by how it was when last compared with the kernel's state.",
);
pub(super) const HOST_PUT_BACK: Family = counter(
    "host_put_back",
    "Changes of the host by others that the node has put back.",
);
pub(super) const FLOWS: Family = gauge(
    "flows",
    "Live flows in the connection table when it was last read from end to end.",
);
pub(super) const FLOWS_LIMIT: Family = gauge("flows_limit", "Flows the connection table has room for.");
pub(super) const DROPS: Family = counter(
    "drops",
    "Packets that went no further, by who counts them and why.",
);
pub(super) const EVENTS: Family = counter(
    "events",
    "Anything else that is counted, by who counts it and what.",
);

/// Metrics of the peers.
pub(super) const PEERS: Family = gauge("peers", "Configured peers by state.");
pub(super) const PEER_CONNECTED: Family = gauge(
    "peer_connected",
    "Whether a connection to the peer stands: 1 or 0.",
);
pub(super) const PEER_RTT: Family = gauge(
    "peer_rtt",
    "Last measured round trip on the peer's oldest connection.",
)
.of("seconds");
pub(super) const PEER_LOSS: Family = gauge(
    "peer_loss",
    "Largest share of lost packets on the peer's connections by an uplink, of those sent in the last minute or two.",
)
.of("ratio");
pub(super) const PEER_HANDSHAKE_AGE: Family = gauge(
    "peer_handshake_age",
    "Time since the last handshake of a connection that stands.",
)
.of("seconds");
pub(super) const PEER_CONNECTIONS: Family = gauge("peer_connections", "Connections to the peer that stand.");
pub(super) const UPLINK_CONNECTIONS: Family = gauge(
    "uplink_connections",
    "Connections by an uplink on which the peer answers.",
);
pub(super) const PEER_STREAMS: Family = gauge("peer_streams", "Open streams to and from the peer.");
pub(super) const PEER_FRAMES: Family = counter(
    "peer_frames",
    "Frames sent to (tx) and injected from (rx) the peer; a super-packet is one.",
);
pub(super) const PEER_TRAFFIC: Family =
    counter("peer_traffic", "Bytes of these frames, frame headers included.").of("bytes");

/// Metrics of the workers.
pub(super) const WORKERS: Family = gauge("workers", "Workers by state.");
pub(super) const WORKER_FILL: Family =
    gauge("worker_fill", "Share of the worker's ring that is full.").of("ratio");
pub(super) const WORKER_RING: Family = gauge("worker_ring", "Size of the worker's ring.").of("bytes");
pub(super) const WORKER_FLOWS: Family = gauge(
    "worker_flows",
    "Live flows of the worker when the connection table was last read.",
);
pub(super) const WORKER_PACKETS: Family = counter("worker_packets", "Packets the worker drained.");
pub(super) const WORKER_DRAINED: Family = counter(
    "worker_drained",
    "Bytes of these packets, with 24 bytes of header each.",
)
.of("bytes");
pub(super) const WORKER_WAKEUPS: Family = counter(
    "worker_wakeups",
    "Times the worker was woken because something had come in.",
);

/// Metrics of the streams.
pub(super) const STREAM_OPEN: Family = gauge("stream_open", "Whether the stream is open: 1 or 0.");
pub(super) const STREAM_PRESSED: Family = gauge(
    "stream_pressed",
    "Whether so much waits for the stream that senders are held back: 1 or 0.",
);
pub(super) const STREAM_QUEUED: Family = gauge("stream_queued", "What waits for the stream.").of("bytes");
pub(super) const STREAM_FRAMES: Family = counter(
    "stream_frames",
    "Frames given to the stream, those it refused too.",
);
pub(super) const STREAM_REFUSED: Family = counter(
    "stream_refused",
    "Frames refused because the stream's queue was full.",
);
pub(super) const STREAM_DROPPED: Family = counter(
    "stream_dropped",
    "Frames dropped because they had waited for the stream too long.",
);
pub(super) const STREAM_MARKED: Family = counter("stream_marked", "Frames marked with ECN instead.");

/// Metrics of the process.
pub(super) const CPU: Family = counter("cpu", "CPU time of the process, user and system.").of("seconds");
pub(super) const RESIDENT_MEMORY: Family =
    gauge("resident_memory", "Resident memory of the process.").of("bytes");
pub(super) const OPEN_FDS: Family = gauge("open_fds", "Open file descriptors of the process.");
pub(super) const MAX_FDS: Family = gauge("max_fds", "File descriptors the process may open.");
pub(super) const THREADS: Family = gauge("threads", "Threads of the process.");
pub(super) const START_TIME: Family = gauge(
    "start_time",
    "When the process started, since 1970-01-01T00:00:00Z.",
)
.of("seconds");
