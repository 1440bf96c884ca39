//! What the page of one peer says above its flows and streams.

use super::columns::Tone;
use super::model::{NodeSnapshot, PeerRates, StreamRates, WithRates};
use crate::cli::peers::{handshake, known_address, path, why};
use crate::cli::rates::{bit_rate, count_rate};
use crate::cli::units::{bytes, short_name};
use crate::control::{PeerState, PeerStatus, StreamStatus};

/// Lines of a page.
pub(super) const N_LINES: usize = 9;

/// A line: its name, and its text.
#[derive(Debug, PartialEq)]
pub(super) struct PageLine {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl PageLine {
    fn new(name: &'static str, text: String) -> Self {
        let tone = Tone::Plain;
        Self { name, text, tone }
    }
}

/// Returns the lines of the peer; `None` if it is configured no more.
pub(super) fn lines(snapshot: &NodeSnapshot, id: &str) -> Option<[PageLine; N_LINES]> {
    let WithRates { now, rates } = snapshot.peers.iter().find(|peer| peer.now.id == id)?;
    let streams = || snapshot.streams.iter().filter(|stream| stream.now.peer == id);
    Some([
        PageLine::new("id", now.id.clone()),
        PageLine::new("vpn", now.allowed_ips.join(", ")),
        state(now),
        PageLine::new("path", path_text(now)),
        PageLine::new("addresses", addresses(now)),
        PageLine::new("sent", sent(now, rates)),
        PageLine::new("received", traffic(rates.rx_bits, rates.rx_frames, now.rx_bytes)),
        PageLine::new("streams", stream_text(now, streams().map(|stream| &stream.now))),
        drops(streams()),
    ])
}

/// Returns the tone of a peer's state.
pub(super) fn state_tone(state: PeerState) -> Tone {
    match state {
        PeerState::Connected => Tone::Good,
        PeerState::Connecting => Tone::Warning,
        PeerState::Disconnected => Tone::Bad,
        PeerState::Idle => Tone::Plain,
        PeerState::Disabled => Tone::Dim,
    }
}

/// Returns what the page is called.
pub(super) fn title(snapshot: &NodeSnapshot, id: &str) -> String {
    let peer = snapshot.peers.iter().find(|peer| peer.now.id == id);
    let name = peer.and_then(|peer| peer.now.name.as_deref());
    short_name(name, id).to_owned()
}

fn state(peer: &PeerStatus) -> PageLine {
    let more = handshake(peer)
        .map(|age| format!("handshake {age}"))
        .or_else(|| why(peer));
    let more = more.map(|more| format!(", {more}")).unwrap_or_default();
    PageLine {
        name: "state",
        text: format!("{}{more}", peer.state),
        tone: state_tone(peer.state),
    }
}

fn path_text(peer: &PeerStatus) -> String {
    let Some(path) = path(peer) else {
        return "-".to_owned();
    };
    let rtt = peer.rtt_ms.map(|rtt| format!(", round trip {rtt:.2} ms"));
    let connections = match peer.connections {
        0 | 1 => String::new(),
        n => format!(", {n} connections"),
    };
    format!("{path}{}{connections}", rtt.unwrap_or_default())
}

/// Says where the peer may be dialled.
fn addresses(peer: &PeerStatus) -> String {
    let all: Vec<_> = peer.addresses.iter().map(known_address).collect();
    match &all[..] {
        [] => "none: the peer dials".to_owned(),
        all => all.join(", "),
    }
}

fn sent(peer: &PeerStatus, rates: &PeerRates) -> String {
    let traffic = traffic(rates.tx_bits, rates.tx_frames, peer.tx_bytes);
    match peer.rate_bytes_per_second {
        Some(rate) => format!("{traffic}, at most {}", bit_rate(8.0 * f64::from(rate))),
        None => traffic,
    }
}

fn traffic(bits: Option<f64>, frames: Option<f64>, n_bytes: u64) -> String {
    let rate = |rate: Option<f64>, show: fn(f64) -> String| rate.map_or_else(|| "-".to_owned(), show);
    format!(
        "{}, frames {}, {} in all",
        rate(bits, bit_rate),
        rate(frames, count_rate),
        bytes(n_bytes)
    )
}

fn stream_text<'a>(peer: &PeerStatus, streams: impl Iterator<Item = &'a StreamStatus>) -> String {
    let (mut queued, mut held) = (0, 0);
    for stream in streams {
        queued += stream.queued_bytes;
        held += u32::from(stream.pressed);
    }
    let held = match held {
        0 => String::new(),
        n => format!(", {n} hold senders back"),
    };
    format!("{} open, {} queued{held}", peer.streams, bytes(queued))
}

/// Says what its streams, as far as they are there now, have lost or marked.
fn drops<'a>(streams: impl Iterator<Item = &'a WithRates<StreamStatus, StreamRates>> + Clone) -> PageLine {
    let sum = |of: fn(&StreamStatus) -> u64| streams.clone().map(|stream| of(&stream.now)).sum::<u64>();
    let rate = |of: fn(&StreamRates) -> Option<f64>| {
        streams
            .clone()
            .filter_map(|stream| of(&stream.rates))
            .sum::<f64>()
    };
    let now = rate(|rates| rates.dropped) + rate(|rates| rates.refused);
    let text = format!(
        "{} dropped ({}), {} refused ({}), {} marked",
        sum(|stream| stream.dropped),
        count_rate(rate(|rates| rates.dropped)),
        sum(|stream| stream.refused),
        count_rate(rate(|rates| rates.refused)),
        sum(|stream| stream.marked)
    );
    PageLine {
        name: "drops",
        text,
        tone: if now > 0.0 { Tone::Bad } else { Tone::Plain },
    }
}
