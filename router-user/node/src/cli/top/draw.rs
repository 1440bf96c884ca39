//! Draws the view.

mod graph;
mod list;
mod page;
mod style;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::columns::Tone;
use super::model::{Model, NodeSnapshot};
use super::panes::Pane;
use super::view::View;
use crate::cli::units::{seconds, short_name};
use list::ListSummary;
use style::style;

const KEYS: &str = "1-5 pane  Enter peer  Esc all  s r sort  / filter  p pause  ? help  q quit";
const PAGE_KEYS: &str = "Esc back  Tab streams or flows  s r sort  p pause  ? help  q quit";

const HELP: [(&str, &str); 13] = [
    ("1 to 5, Tab", "choose a pane"),
    ("s", "sort by the next column"),
    ("r", "the other way round"),
    ("/", "show only peers, streams and flows"),
    ("", "with this in their id or address,"),
    ("", "or inside this prefix"),
    ("Up, Down, PgUp ...", "choose a row"),
    ("Enter", "open the page of its peer"),
    ("Esc", "leave the page; show all again"),
    ("p", "pause: the node is not asked"),
    ("+, -", "ask less often, more often"),
    ("?", "this"),
    ("q, F10, Ctrl-C", "quit"),
];

/// Least width and height of a screen with a second row of panes.
const LARGE: (u16, u16) = (120, 36);
const SECOND_ROW: u16 = 10;
/// Least width of a screen with graphs that can be read.
const MIN_GRAPHS: u16 = 50;
/// Lines that the head of a peer's page leaves to the rest.
const MIN_LIST: u16 = 8;

/// Silence, if it is also longer than three intervals, after which the view says that the node does not answer.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Draws everything; `now` is the time since the start of the view.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, view: &mut View, now: Duration) {
    let area = frame.area();
    let Some(snapshot) = model.snapshot() else {
        frame.render_widget("waiting for the node", area);
        return;
    };
    let silence = silence(snapshot, model, view, now);
    let height = |shown: bool, height: u16| Constraint::Length(if shown { height } else { 0 });
    let has_graphs = area.width >= MIN_GRAPHS;
    let is_large = area.width >= LARGE.0 && area.height >= LARGE.1 && view.page().is_none();
    let graphs = match area.height {
        ..14 => 0,
        14.. if view.page().is_some() => page::HEIGHT.min(area.height.saturating_sub(MIN_LIST)),
        14..20 => 4,
        20..LARGE_HEIGHT => 7,
        _ => 10,
    };
    let [top, problem, graphs, tabs, list, second, bottom] = Layout::vertical([
        height(true, 1),
        height(silence.is_some(), 1),
        height(has_graphs || view.page().is_some(), graphs),
        height(area.height >= 6, 1),
        Constraint::Min(0),
        height(is_large, SECOND_ROW),
        height(area.height >= 5, 1),
    ])
    .areas(area);
    frame.render_widget(heading(snapshot, view, area.width), top);
    if let Some(silence) = silence {
        frame.render_widget(
            Line::styled(silence, style(Tone::Bad).add_modifier(Modifier::REVERSED)),
            problem,
        );
    }
    match view.page() {
        Some(id) => page::draw(frame, snapshot, id, graphs),
        None => draw_graphs(frame, model, view, graphs, now),
    }
    let summary = list::draw(frame, snapshot, view, view.pane(), list);
    draw_tabs(frame, view, &summary, tabs);
    if is_large {
        draw_second_row(frame, snapshot, view, second);
    }
    draw_bottom(frame, view, bottom);
    if view.is_help() {
        draw_help(frame, area);
    }
}

const LARGE_HEIGHT: u16 = LARGE.1;

/// Returns the text that says that the node does not answer, if it does not.
fn silence(snapshot: &NodeSnapshot, model: &Model, view: &View, now: Duration) -> Option<String> {
    let silent = now.saturating_sub(snapshot.at);
    let is_silent = silent > SILENT_AFTER.max(view.interval() * 3) && !view.is_paused();
    let since = format!("no answer for {}, asking again", seconds(silent.as_secs_f64()));
    match model.trouble() {
        Some(trouble) => Some(format!(" {since}: {trouble}")),
        None if is_silent => Some(format!(" {since}")),
        None => None,
    }
}

fn heading(snapshot: &NodeSnapshot, view: &View, width: u16) -> Line<'static> {
    let status = &snapshot.status;
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let retired = match status.retired_workers {
        0 => String::new(),
        n => format!("+{n}"),
    };
    let connected = if status.connected_peers == status.configured_peers {
        Tone::Good
    } else {
        Tone::Warning
    };
    let mut parts = vec![
        Span::styled(status.device.name.clone(), strong),
        Span::raw(format!(
            " {}  ",
            short_name(status.name.as_deref(), &status.peer_id)
        )),
        Span::raw("peers "),
        Span::styled(
            format!("{}/{}", status.connected_peers, status.configured_peers),
            style(connected),
        ),
        Span::raw(format!("  workers {}{retired}", status.workers)),
        Span::raw(format!("  up {}", seconds(status.uptime_seconds))),
        Span::raw(format!("  v{}", status.version)),
    ];
    let pace = if view.is_paused() {
        Span::styled("PAUSED", style(Tone::Warning).add_modifier(Modifier::REVERSED))
    } else {
        Span::styled(format!("every {}", interval(view.interval())), style(Tone::Dim))
    };
    let taken = |parts: &[Span<'_>]| parts.iter().map(Span::width).sum::<usize>();
    // The pace stays, at the right; what it would cover goes.
    while parts.len() > 1 && taken(&parts) + 2 + pace.width() > width.into() {
        parts.pop();
    }
    let room = usize::from(width).saturating_sub(taken(&parts) + pace.width());
    parts.push(Span::raw(" ".repeat(room)));
    parts.push(pace);
    Line::from(parts)
}

fn interval(interval: Duration) -> String {
    let seconds = interval.as_secs_f64();
    if seconds.fract() == 0.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{seconds:.1} s")
    }
}

fn draw_graphs(frame: &mut Frame<'_>, model: &Model, view: &View, area: Rect, now: Duration) {
    if area.is_empty() {
        return;
    }
    // A paused graph stands still.
    let now = match model.snapshot() {
        Some(snapshot) if view.is_paused() => snapshot.at,
        _ => now,
    };
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    graph::draw(frame, model, &graph::SENT, left, now);
    graph::draw(frame, model, &graph::RECEIVED, right, now);
}

fn draw_tabs(frame: &mut Frame<'_>, view: &View, summary: &ListSummary, area: Rect) {
    let mut parts = Vec::new();
    for (number, pane) in (1..).zip(Pane::ALL) {
        if !view.panes().contains(&pane) {
            continue;
        }
        let is_chosen = pane == view.pane();
        if !is_chosen && area.width < MIN_GRAPHS {
            continue;
        }
        let style = if is_chosen {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        } else {
            style(Tone::Dim)
        };
        parts.push(Span::styled(format!(" {number} {} ", pane.title()), style));
    }
    if let Some(order) = summary.order {
        parts.push(Span::raw(format!(" by {}", order.to_lowercase())));
    }
    if view.page().is_none() && view.pane().is_filtered() && !view.filter().text().is_empty() {
        let only = format!(" only {}", view.filter().text());
        parts.push(Span::styled(only, style(Tone::Warning)));
    }
    let tabs = Line::from(parts);
    let place = Line::styled(summary.place.as_str(), style(Tone::Dim)).right_aligned();
    if tabs.width() + 1 + place.width() <= area.width.into() {
        frame.render_widget(place, area);
    }
    frame.render_widget(tabs, area);
}

/// Draws the first panes that are not chosen, so that a large screen shows at once what is busy and what is lost.
fn draw_second_row(frame: &mut Frame<'_>, snapshot: &NodeSnapshot, view: &mut View, area: Rect) {
    let chosen = view.pane();
    let others = [Pane::Workers, Pane::Drops, Pane::Peers];
    let mut others = others.into_iter().filter(|pane| *pane != chosen);
    let halves: [Rect; 2] = Layout::horizontal([Constraint::Fill(1); 2])
        .spacing(1)
        .areas(area);
    for half in halves {
        let Some(pane) = others.next() else {
            continue;
        };
        let block = Block::bordered()
            .title(format!(" {} ", pane.title()))
            .border_style(style(Tone::Dim));
        let inner = block.inner(half);
        frame.render_widget(block, half);
        list::draw(frame, snapshot, view, pane, inner);
    }
}

fn draw_bottom(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let line = match view.typed() {
        Some(typed) => Line::from(vec![
            Span::styled("show only: ", style(Tone::Warning)),
            Span::raw(typed.to_owned()),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            Span::styled("  Enter, or Esc to leave it as it was", style(Tone::Dim)),
        ]),
        None if view.page().is_some() => Line::styled(PAGE_KEYS, style(Tone::Dim)),
        None => Line::styled(KEYS, style(Tone::Dim)),
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let line = |(keys, what): &(&str, &str)| Line::raw(format!(" {keys:<18}  {what}"));
    let text: Vec<Line<'_>> = HELP.iter().map(line).collect();
    let width = text.iter().map(Line::width).max().unwrap_or(0) as u16 + 3;
    let popup = area.centered(Constraint::Max(width), Constraint::Max(HELP.len() as u16 + 2));
    frame.render_widget(Clear, popup);
    frame.render_widget(
        Paragraph::new(text).block(Block::bordered().title(" Keys ")),
        popup,
    );
}
