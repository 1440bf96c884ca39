//! The rows of a pane.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Row as TableRow, Table};

use super::style::style;
use crate::cli::table::Alignment;
use crate::cli::top::columns::{Column, Order, Row, SPACING, Tone, fit};
use crate::cli::top::model::NodeSnapshot;
use crate::cli::top::panes::Pane;
use crate::cli::top::view::View;
use crate::cli::units::seconds;

/// What the drawn rows do not show themselves.
#[derive(Debug, Default)]
pub(super) struct ListSummary {
    /// How many rows there are, and which of them are shown.
    pub(super) place: String,
    /// Column that the rows are ordered by, if it is not shown.
    pub(super) order: Option<&'static str>,
}

/// Draws the rows that there is room for, under their heading.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    snapshot: &NodeSnapshot,
    view: &mut View,
    pane: Pane,
    area: Rect,
) -> ListSummary {
    let order = view.order(pane);
    let rows = pane.rows(snapshot, view.filter(), order);
    let (n_rows, room) = (rows.len(), usize::from(area.height.saturating_sub(1)));
    let first = view.scrolled(pane, n_rows, room);
    let chosen = view.chosen(pane);
    view.set_chosen_peer(pane, rows.get(chosen).and_then(|row| row.peer.clone()));
    // Keys move the one of the pane that has them.
    let is_marked = |index: usize| pane == view.pane() && first + index == chosen;
    let shown = rows.get(first..(first + room).min(n_rows)).unwrap_or_default();
    if shown.is_empty() {
        let line = Line::styled(pane.empty(snapshot, view.filter()), style(Tone::Dim));
        if n_rows == 0 {
            frame.render_widget(line, area);
        }
        return ListSummary::default();
    }
    let columns = pane.columns();
    let wanted = columns
        .iter()
        .enumerate()
        .map(|(index, column)| wanted(index, column, shown));
    let fitting = fit(columns, &wanted.collect::<Vec<_>>(), area.width);
    let heading = fitting.iter().map(|(index, _)| heading(columns, *index, order));
    let heading = TableRow::new(heading.collect::<Vec<_>>());
    let widths = fitting.iter().map(|(_, width)| Constraint::Length(*width));
    let widths: Vec<_> = widths.collect();
    let lines = shown.iter().enumerate().map(|(index, row)| {
        let cells = fitting.iter().filter_map(|(index, _)| {
            let (column, cell) = (columns.get(*index)?, row.cells.get(*index)?);
            Some(aligned(&cell.text, column.side).style(style(cell.tone)))
        });
        let line = TableRow::new(cells.collect::<Vec<_>>());
        if is_marked(index) {
            return line.style(Style::new().add_modifier(Modifier::REVERSED));
        }
        line
    });
    let table = Table::new(lines.collect::<Vec<_>>(), widths)
        .column_spacing(SPACING)
        .header(heading.style(Style::new().add_modifier(Modifier::BOLD)));
    frame.render_widget(table, area);
    let is_shown = fitting.iter().any(|(index, _)| *index == order.column);
    let by = columns.get(order.column).filter(|_| !is_shown);
    ListSummary {
        place: place(snapshot, pane, first, shown.len(), n_rows),
        order: by.map(|column| column.title),
    }
}

/// Returns the width of the heading with its mark, or of the longest cell that is shown.
fn wanted(index: usize, column: &Column, shown: &[Row]) -> u16 {
    let cells = shown.iter().filter_map(|row| row.cells.get(index));
    let longest = cells.map(|cell| Line::raw(cell.text.as_str()).width()).max();
    longest
        .unwrap_or(0)
        .max(column.title.len() + 1)
        .min(u16::MAX.into()) as u16
}

fn heading(columns: &[Column], index: usize, order: Order) -> Text<'static> {
    let Some(column) = columns.get(index) else {
        return Text::default();
    };
    let mark = match order {
        Order { column, .. } if column != index => "",
        Order { reversed: false, .. } => "▼",
        Order { reversed: true, .. } => "▲",
    };
    aligned(&format!("{}{mark}", column.title), column.side)
}

fn aligned(text: &str, side: Alignment) -> Text<'static> {
    let text = Text::raw(text.to_owned());
    match side {
        Alignment::Left => text.left_aligned(),
        Alignment::Right => text.right_aligned(),
    }
}

fn place(snapshot: &NodeSnapshot, pane: Pane, first: usize, n_shown: usize, n_rows: usize) -> String {
    let what = pane.title().to_lowercase();
    let what = if n_rows == 1 {
        what.trim_end_matches('s')
    } else {
        &what
    };
    let place = if n_shown < n_rows {
        format!("{}-{} of {n_rows} {what}", first + 1, first + n_shown)
    } else {
        format!("{n_rows} {what}")
    };
    let flows = snapshot.flows.as_ref().filter(|_| pane == Pane::Flows);
    let Some(flows) = flows else {
        return place;
    };
    let age = snapshot.at.saturating_sub(flows.at);
    let age = match age.as_secs() {
        0..=1 => String::new(),
        _ => format!(", {} ago", seconds(age.as_secs_f64())),
    };
    format!("{place}, {} live{age}", flows.n_live)
}
