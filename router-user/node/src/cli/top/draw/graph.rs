//! Throughput over time.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Sparkline};

use super::style::style;
use crate::cli::rates::bit_rate;
use crate::cli::top::columns::Tone;
use crate::cli::top::history::{ThroughputPoint, column_width};
use crate::cli::top::model::Model;
use crate::cli::units::bytes;
use crate::control::PeerStatus;

/// Least rate at the top of a graph. Below it only keep-alives are sent, which should not fill the graph.
const LEAST_TOP: f64 = 10_000.0;

/// What is drawn of one direction.
pub(super) struct Direction {
    name: &'static str,
    color: Color,
    bits_per_second: fn(&ThroughputPoint) -> f64,
    bytes: fn(&PeerStatus) -> u64,
}

pub(super) const SENT: Direction = Direction {
    name: "sent",
    color: Color::Cyan,
    bits_per_second: |point| point.tx_bits_per_second,
    bytes: |peer| peer.tx_bytes,
};

pub(super) const RECEIVED: Direction = Direction {
    name: "received",
    color: Color::Magenta,
    bits_per_second: |point| point.rx_bits_per_second,
    bytes: |peer| peer.rx_bytes,
};

/// Draws the graph of one direction, the newest rate at the right.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, direction: &Direction, area: Rect, now: Duration) {
    let (of, color) = (direction.bits_per_second, direction.color);
    let block = Block::bordered().border_style(style(Tone::Dim));
    let n_columns = usize::from(block.inner(area).width);
    let columns = model.history().columns(n_columns, now, of);
    let top = columns.iter().flatten().copied().fold(LEAST_TOP, f64::max);
    let latest = model.history().latest().map(of);
    let peers = model.snapshot().map(|snapshot| snapshot.peers.iter());
    let total: Option<u64> = peers.map(|peers| peers.map(|peer| (direction.bytes)(&peer.now)).sum());
    let span = column_width(n_columns) * n_columns as u32;
    let title = Line::from(vec![
        Span::styled(
            format!(" {} ", direction.name),
            Style::new().fg(color).add_modifier(Modifier::BOLD),
        ),
        Span::raw(latest.map_or("-".to_owned(), bit_rate)),
        Span::raw(total.map_or_else(String::new, |total| format!(", all {}", bytes(total)))),
        Span::raw(" "),
    ]);
    let scale = format!(
        " {}:{:02} min, 0 to {} ",
        span.as_secs() / 60,
        span.as_secs() % 60,
        bit_rate(top)
    );
    let bars = columns.into_iter().map(|rate| rate.map(|rate| rate as u64));
    let graph = Sparkline::default()
        .data(bars.collect::<Vec<_>>())
        .max(top as u64)
        .style(Style::new().fg(color))
        .absent_value_symbol(" ")
        .block(
            block
                .title(title)
                .title_bottom(Line::styled(scale, style(Tone::Dim)).right_aligned()),
        );
    frame.render_widget(graph, area);
}
