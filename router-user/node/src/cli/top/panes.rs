//! What each pane of the view shows.

use super::columns::{Cell, Column, Order, Row, Tone, sort};
use super::filter::Filter;
use super::model::{FlowRates, NodeSnapshot, PeerRates, StreamRates, WithRates, WorkerRates};
use super::peer_page::state_tone;
use crate::cli::rates::{bit_rate, count_rate};
use crate::cli::units::{bytes, endpoint, seconds, short_name};
use crate::control::{CounterStatus, Flow, PeerStatus, StreamState, StreamStatus, WorkerState, WorkerStatus};

/// A pane of the view, which shows a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Peers,
    Workers,
    Streams,
    Flows,
    Drops,
}

const PEERS: [Column; 11] = [
    Column::text("PEER", 0),
    Column::text("STATE", 0),
    Column::number("RTT", 1),
    Column::number("TX", 0),
    Column::number("RX", 0),
    Column::number("STREAMS", 2),
    Column::text("VIA", 5),
    Column::flexible("ADDRESS", 3, 24),
    Column::number("TX FRAMES", 6),
    Column::number("RX FRAMES", 6),
    Column::flexible("ALLOWED", 4, 14),
];
const WORKERS: [Column; 9] = [
    Column::number("WORKER", 0),
    Column::text("STATE", 1),
    Column::text("FILL", 0),
    Column::number("PACKETS", 1),
    Column::number("RATE", 0),
    Column::number("FLOWS", 2),
    Column::number("WAKE-UPS", 4),
    Column::text("THREAD", 3),
    Column::number("RING", 5),
];
const STREAMS: [Column; 11] = [
    Column::text("PEER", 0),
    Column::number("STREAM", 0),
    Column::text("STATE", 2),
    Column::number("QUEUED", 0),
    Column::number("FRAMES", 1),
    Column::number("DROPPED", 1),
    Column::number("REFUSED", 1),
    Column::number("MARKED", 3),
    Column::text("SENDERS", 3),
    Column::text("VIA", 4),
    Column::number("ALL FRAMES", 5),
];
const FLOWS: [Column; 12] = [
    Column::text("PROTO", 1),
    Column::flexible("SOURCE", 0, 21),
    Column::flexible("DESTINATION", 0, 21),
    Column::number("TX", 0),
    Column::number("RX", 0),
    Column::number("RATE", 4),
    Column::number("PACKETS", 4),
    Column::number("BYTES", 3),
    Column::text("PEER", 2),
    Column::number("WORKER", 6),
    Column::number("STREAM", 6),
    Column::number("IDLE", 5),
];
const DROPS: [Column; 5] = [
    Column::text("REASON", 0),
    Column::number("RATE", 0),
    Column::number("ALL", 0),
    Column::text("FROM", 2),
    Column::flexible("MEANING", 1, 20),
];

/// Number of characters in a bar.
const BAR: usize = 10;

impl Pane {
    /// Those that the page of a peer has.
    pub(super) const OF_PEER: [Self; 2] = [Self::Streams, Self::Flows];

    pub(super) const ALL: [Self; 5] = [
        Self::Peers,
        Self::Workers,
        Self::Streams,
        Self::Flows,
        Self::Drops,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Peers => "Peers",
            Self::Workers => "Workers",
            Self::Streams => "Streams",
            Self::Flows => "Flows",
            Self::Drops => "Drops",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Peers => &PEERS,
            Self::Workers => &WORKERS,
            Self::Streams => &STREAMS,
            Self::Flows => &FLOWS,
            Self::Drops => &DROPS,
        }
    }

    /// Returns the initial order: the busiest first, but workers by number, as there are few and they should not jump.
    pub(super) fn first_order(self) -> Order {
        let by = match self {
            Self::Peers => "TX",
            Self::Workers => "WORKER",
            Self::Streams => "QUEUED",
            Self::Flows | Self::Drops => "RATE",
        };
        let column = self.columns().iter().position(|column| column.title == by);
        Order {
            column: column.unwrap_or(0),
            reversed: self == Self::Workers,
        }
    }

    /// Returns whether the filter applies to the pane.
    pub(super) fn is_filtered(self) -> bool {
        matches!(self, Self::Peers | Self::Streams | Self::Flows)
    }

    /// Returns the rows of the pane, in order.
    pub(super) fn rows(self, snapshot: &NodeSnapshot, filter: &Filter, order: Order) -> Vec<Row> {
        let mut rows: Vec<Row> = match self {
            Self::Peers => {
                let shown = snapshot.peers.iter().filter(|peer| filter.shows_peer(&peer.now));
                shown.map(peer).collect()
            }
            Self::Workers => snapshot.workers.iter().map(worker).collect(),
            Self::Streams => {
                let shown = snapshot.streams.iter();
                let shown = shown.filter(|stream| filter.shows_stream(&stream.now));
                shown.map(stream).collect()
            }
            Self::Flows => {
                let flows = snapshot.flows.as_ref().map_or(&[][..], |flows| &flows.flows);
                let shown = flows.iter().filter(|flow| filter.shows_flow(&flow.now));
                shown.map(flow).collect()
            }
            Self::Drops => {
                let counted = snapshot.drops.iter().filter(|drop| drop.now.value > 0);
                counted.map(drop).collect()
            }
        };
        sort(&mut rows, order);
        rows
    }

    /// Returns the text that is shown when there is no row.
    pub(super) fn empty(self, snapshot: &NodeSnapshot, filter: &Filter) -> &'static str {
        let is_filtered = self.is_filtered() && !filter.text().is_empty();
        match self {
            Self::Flows if snapshot.flows.is_none() => "asking for the flows",
            Self::Streams if filter.is_of_peer() => "no streams to this peer",
            Self::Flows if filter.is_of_peer() => "no live flows with this peer",
            _ if is_filtered => "nothing here fits the filter",
            Self::Peers => "no peers are configured",
            Self::Workers => "no workers",
            Self::Streams => "no streams",
            Self::Flows => "no live flows",
            Self::Drops => "nothing was dropped",
        }
    }
}

fn peer(peer: &WithRates<PeerStatus, PeerRates>) -> Row {
    let WithRates { now, rates } = peer;
    // While there is no connection, why there is none.
    let address = match (&now.address, &now.last_dial_error) {
        (Some(address), _) => Cell::text(without_id(address)),
        (None, Some(error)) => Cell::text(error).with_tone(Tone::Warning),
        (None, None) => Cell::known(None::<&str>),
    };
    let cells = vec![
        Cell::text(short_name(now.name.as_deref(), &now.id)),
        Cell::text(now.state.to_string()).with_tone(state_tone(now.state)),
        Cell::maybe(now.rtt_ms, |rtt| format!("{rtt:.2} ms")),
        Cell::maybe(rates.tx_bits, bit_rate),
        Cell::maybe(rates.rx_bits, bit_rate),
        Cell::count(now.streams.into()),
        Cell::known(now.transport),
        address,
        Cell::maybe(rates.tx_frames, count_rate),
        Cell::maybe(rates.rx_frames, count_rate),
        Cell::text(now.allowed_ips.join(", ")),
    ];
    Row::of_peer(cells, &now.id, now.name.as_deref())
}

fn worker(worker: &WithRates<WorkerStatus, WorkerRates>) -> Row {
    let WithRates { now, rates } = worker;
    let state = match now.state {
        WorkerState::Active => Tone::Plain,
        WorkerState::Retired => Tone::Dim,
    };
    let cells = vec![
        Cell::count(now.id.into()),
        Cell::text(now.state.to_string()).with_tone(state),
        fill(now.fill),
        Cell::maybe(rates.packets, count_rate),
        Cell::maybe(rates.bits, bit_rate),
        Cell::count(now.flows.into()),
        Cell::maybe(rates.wakeups, count_rate),
        Cell::text(&now.thread),
        Cell::number(now.ring_bytes as f64, bytes(now.ring_bytes)),
    ];
    Row::new(cells)
}

fn stream(stream: &WithRates<StreamStatus, StreamRates>) -> Row {
    let WithRates { now, rates } = stream;
    let state = match (now.state, now.open) {
        (StreamState::Active, true) => Cell::text("active").with_tone(Tone::Good),
        (StreamState::Active, false) => Cell::text("closed"),
        (StreamState::Retired, _) => Cell::text("retired").with_tone(Tone::Dim),
    };
    let senders = if now.pressed {
        Cell::text("held").with_tone(Tone::Warning)
    } else {
        Cell::text("free").with_tone(Tone::Dim)
    };
    let lost = |rate, all| warned(Cell::maybe(rate, count_rate), rate, all);
    let cells = vec![
        Cell::text(short_name(now.peer_name.as_deref(), &now.peer)),
        Cell::count(now.index.into()),
        state,
        Cell::number(now.queued_bytes as f64, bytes(now.queued_bytes)),
        Cell::maybe(rates.frames, count_rate),
        lost(rates.dropped, now.dropped),
        lost(rates.refused, now.refused),
        Cell::maybe(rates.marked, count_rate),
        senders,
        Cell::known(now.transport),
        Cell::count(now.frames),
    ];
    Row::of_peer(cells, &now.peer, now.peer_name.as_deref())
}

fn flow(flow: &WithRates<Flow, FlowRates>) -> Row {
    let WithRates { now, rates } = flow;
    let cells = vec![
        Cell::text(now.protocol.to_string()),
        Cell::text(endpoint(now.source, now.source_port)),
        Cell::text(endpoint(now.destination, now.destination_port)),
        Cell::maybe(rates.tx_bits, bit_rate),
        Cell::maybe(rates.rx_bits, bit_rate),
        Cell::maybe(rates.bits(), bit_rate),
        Cell::maybe(rates.packets, count_rate),
        Cell::number(now.all_bytes() as f64, bytes(now.all_bytes())),
        Cell::known(
            now.peer
                .as_deref()
                .map(|id| short_name(now.peer_name.as_deref(), id)),
        ),
        Cell::maybe(now.worker.map(f64::from), |worker| format!("{worker:.0}")),
        Cell::maybe(now.stream.map(f64::from), |stream| format!("{stream:.0}")),
        Cell::number(now.idle_seconds, seconds(now.idle_seconds)),
    ];
    match &now.peer {
        Some(peer) => Row::of_peer(cells, peer, now.peer_name.as_deref()),
        None => Row::new(cells),
    }
}

fn drop(drop: &WithRates<CounterStatus, Option<f64>>) -> Row {
    let WithRates { now, rates: rate } = drop;
    let cells = vec![
        Cell::text(&now.name),
        warned(Cell::maybe(*rate, count_rate), *rate, now.value),
        Cell::count(now.value),
        Cell::text(now.origin.to_string()),
        Cell::text(&now.meaning),
    ];
    Row::new(cells)
}

/// Returns the tone of a counter of drops: packets lost now are worse than those lost earlier.
fn warned(cell: Cell, rate: Option<f64>, all: u64) -> Cell {
    let tone = match (rate, all) {
        (Some(rate), _) if rate > 0.0 => Tone::Bad,
        (_, 0) => Tone::Dim,
        _ => Tone::Plain,
    };
    cell.with_tone(tone)
}

/// Returns an address without the peer's id, which has a column of its own.
fn without_id(address: &str) -> &str {
    address
        .split_once("/p2p/")
        .map_or(address, |(address, _)| address)
}

/// Returns a bar, and the share that it stands for.
fn fill(share: f64) -> Cell {
    let share = share.clamp(0.0, 1.0);
    let n_full = (share * BAR as f64).round() as usize;
    let text = format!(
        "{}{} {:>3.0} %",
        "█".repeat(n_full),
        "░".repeat(BAR.saturating_sub(n_full)),
        share * 100.0
    );
    Cell::number(share, text).with_tone(match share {
        ..0.5 => Tone::Good,
        ..0.75 => Tone::Warning,
        _ => Tone::Bad,
    })
}
