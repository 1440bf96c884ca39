//! Rows of cells: their order, and which columns a width has room for.

use std::cmp::Ordering;

use crate::cli::table::Alignment;
use crate::cli::units::short_name;

/// Width of the gap between two columns.
pub(super) const SPACING: u16 = 1;

/// Least width of a column that can be read.
const MIN_WIDTH: u16 = 6;

/// A column of a pane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Heading of the column.
    pub(super) title: &'static str,
    /// Alignment of the text.
    pub(super) side: Alignment,
    /// Columns of a high rank are left out first; those of rank 0 never.
    pub(super) rank: u8,
    /// Width that the column may be cut down to.
    pub(super) least: Option<u16>,
}

/// A field of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// Text that is shown.
    pub(super) text: String,
    /// Key that the row is ordered by.
    pub(super) key: Key,
    /// Meaning, which decides the colour.
    pub(super) tone: Tone,
}

/// What a cell is ordered by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    /// The cell has no value, and comes last in either order.
    Missing,
    /// A number; the largest comes first.
    Number(f64),
    /// A text, in alphabetical order.
    Text,
}

/// What a cell means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Warning,
    Bad,
}

/// A row of a pane: a cell for each column.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// Peer that the row is of, if it is of one.
    pub(super) peer: Option<RowPeer>,
}

/// The peer of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPeer {
    pub(super) id: String,
    /// What it is called in a row.
    pub(super) name: String,
}

/// What the rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Index of a column.
    pub(super) column: usize,
    /// Whether the order is reversed.
    pub(super) reversed: bool,
}

impl Row {
    /// Makes a row that is of no peer.
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self { cells, peer: None }
    }

    /// Makes a row of a peer.
    pub(super) fn of_peer(cells: Vec<Cell>, id: &str, name: Option<&str>) -> Self {
        let peer = RowPeer {
            id: id.to_owned(),
            name: short_name(name, id).to_owned(),
        };
        Self {
            cells,
            peer: Some(peer),
        }
    }
}

impl Column {
    pub(super) const fn text(title: &'static str, rank: u8) -> Self {
        Self {
            title,
            side: Alignment::Left,
            rank,
            least: None,
        }
    }

    pub(super) const fn flexible(title: &'static str, rank: u8, least: u16) -> Self {
        Self {
            title,
            side: Alignment::Left,
            rank,
            least: Some(least),
        }
    }

    pub(super) const fn number(title: &'static str, rank: u8) -> Self {
        Self {
            title,
            side: Alignment::Right,
            rank,
            least: None,
        }
    }
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            key: Key::Text,
            tone: Tone::Plain,
        }
    }

    /// Makes a cell of a number, shown as `text`.
    pub(super) fn number(value: f64, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            key: Key::Number(value),
            tone: Tone::Plain,
        }
    }

    /// Makes a cell of a text that may be unknown.
    pub(super) fn known(text: Option<impl ToString>) -> Self {
        match text {
            Some(text) => Self::text(text.to_string()),
            None => Self::text("-").with_tone(Tone::Dim),
        }
    }

    pub(super) fn count(n: u64) -> Self {
        Self::number(n as f64, n.to_string())
    }

    /// Makes a cell of a number that may be unknown.
    pub(super) fn maybe(value: Option<f64>, show: impl FnOnce(f64) -> String) -> Self {
        match value {
            Some(value) => Self::number(value, show(value)),
            None => Self {
                text: "-".to_owned(),
                key: Key::Missing,
                tone: Tone::Dim,
            },
        }
    }

    pub(super) fn with_tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl Cell {
    fn order(&self, other: &Self, reversed: bool) -> Ordering {
        let order = match (&self.key, &other.key) {
            (Key::Missing, Key::Missing) => Ordering::Equal,
            (Key::Missing, _) => return Ordering::Greater,
            (_, Key::Missing) => return Ordering::Less,
            (Key::Number(a), Key::Number(b)) => b.total_cmp(a),
            _ => self.text.cmp(&other.text),
        };
        if reversed { order.reverse() } else { order }
    }
}

/// Sorts rows; the sort is stable.
pub(super) fn sort(rows: &mut [Row], order: Order) {
    rows.sort_by(
        |a, b| match (a.cells.get(order.column), b.cells.get(order.column)) {
            (Some(a), Some(b)) => a.order(b, order.reversed),
            _ => Ordering::Equal,
        },
    );
}

/// Returns the columns that `width` has room for, by index, with the width of each. `wanted` has the full width of
/// each.
pub(super) fn fit(columns: &[Column], wanted: &[u16], width: u16) -> Vec<(usize, u16)> {
    let mut by_rank: Vec<_> = columns.iter().zip(wanted).enumerate().collect();
    by_rank.sort_by_key(|(_, (column, _))| column.rank);
    let mut left = width;
    let mut chosen = Vec::new();
    for (index, (column, wanted)) in &by_rank {
        let least = column.least.map_or(**wanted, |least| least.min(**wanted));
        let space = if chosen.is_empty() { 0 } else { SPACING };
        let room = left.saturating_sub(space);
        let is_cut = least > room;
        let is_of_use = column.rank == 0 && (room >= MIN_WIDTH || chosen.is_empty());
        if room == 0 || (is_cut && !is_of_use) {
            continue;
        }
        let given = least.min(room);
        left = room - given;
        chosen.push((*index, given, **wanted));
    }
    // What is left is for those that were cut, in the same order.
    for (_, given, wanted) in &mut chosen {
        let more = wanted.saturating_sub(*given).min(left);
        *given += more;
        left -= more;
    }
    chosen.sort_by_key(|(index, ..)| *index);
    chosen
        .into_iter()
        .map(|(index, given, _)| (index, given))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("name", 0),
        Column::flexible("where", 2, 10),
        Column::number("rate", 1),
        Column::number("more", 3),
    ];

    #[test]
    fn what_is_less_needed_goes_first() {
        let wanted = [8, 30, 6, 5];
        for (width, expected) in [
            (52, &[(0, 8), (1, 30), (2, 6), (3, 5)][..]),
            (51, &[(0, 8), (1, 29), (2, 6), (3, 5)]),
            (32, &[(0, 8), (1, 10), (2, 6), (3, 5)]),
            (30, &[(0, 8), (1, 14), (2, 6)]),
            (20, &[(0, 8), (2, 6)]),
            (12, &[(0, 8)]),
            (5, &[(0, 5)]),
            (0, &[]),
        ] {
            assert_eq!(fit(&COLUMNS, &wanted, width), expected, "{width}");
        }
    }

    fn row(cell: Cell) -> Row {
        Row::new(vec![cell])
    }

    fn ordered(cells: &[Cell], reversed: bool) -> Vec<String> {
        let mut rows: Vec<_> = cells.iter().cloned().map(row).collect();
        sort(&mut rows, Order { column: 0, reversed });
        rows.into_iter().map(|row| row.cells[0].text.clone()).collect()
    }

    #[test]
    fn most_comes_first_and_what_is_not_known_last() {
        let numbers = [Some(1.0), None, Some(10.0), Some(9.0)];
        let cells = numbers.map(|number| Cell::maybe(number, |n| n.to_string()));

        assert_eq!(ordered(&cells, false), ["10", "9", "1", "-"]);
        assert_eq!(ordered(&cells, true), ["1", "9", "10", "-"]);
    }

    #[test]
    fn texts_are_in_the_order_of_letters() {
        let cells = ["b", "a", "c"].map(Cell::text);

        assert_eq!(ordered(&cells, false), ["a", "b", "c"]);
        assert_eq!(ordered(&cells, true), ["c", "b", "a"]);
    }

    proptest! {
        #[test]
        fn the_columns_never_take_more_than_there_is(
            columns in vec((0_u8..5, proptest::option::of(0_u16..30), 0_u16..60), 0..12),
            width in 0_u16..200,
        ) {
            let wanted: Vec<u16> = columns.iter().map(|(.., wanted)| *wanted).collect();
            let columns: Vec<Column> = columns
                .iter()
                .map(|(rank, least, _)| Column { least: *least, ..Column::text("x", *rank) })
                .collect();

            let fitting = fit(&columns, &wanted, width);

            let taken: u16 = fitting.iter().map(|(_, width)| *width).sum();
            let between = SPACING * (fitting.len().saturating_sub(1)) as u16;
            prop_assert!(taken + between <= width);
            prop_assert!(fitting.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}
