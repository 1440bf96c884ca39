//! Aligned columns.

use std::fmt::Display;

/// Alignment of the text in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alignment {
    /// Left, for text.
    Left,
    /// Right, for numbers.
    Right,
}

/// Rows under a heading, made column by column.
#[derive(Debug)]
pub(super) struct TextTable<'a, R> {
    rows: &'a [R],
    columns: Vec<(Alignment, Vec<String>)>,
}

impl<'a, R> TextTable<'a, R> {
    /// Makes a table without columns that has a line for each of `rows`.
    pub(super) fn new(rows: &'a [R]) -> Self {
        let columns = Vec::new();
        Self { rows, columns }
    }

    /// Adds a column of text.
    pub(super) fn left<D: Display>(self, name: &str, cell: impl Fn(&'a R) -> D) -> Self {
        self.column(name, Alignment::Left, cell)
    }

    /// Adds a column of numbers.
    pub(super) fn right<D: Display>(self, name: &str, cell: impl Fn(&'a R) -> D) -> Self {
        self.column(name, Alignment::Right, cell)
    }

    fn column<D: Display>(mut self, name: &str, side: Alignment, cell: impl Fn(&'a R) -> D) -> Self {
        let cells = self.rows.iter().map(|row| cell(row).to_string());
        let cells = std::iter::once(name.to_uppercase()).chain(cells).collect();
        self.columns.push((side, cells));
        self
    }

    /// Returns the lines, without spaces at their ends.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![String::new(); 1 + self.rows.len()];
        for (n, (side, cells)) in self.columns.iter().enumerate() {
            let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let gap = if n == 0 { "" } else { "  " };
            for (line, cell) in lines.iter_mut().zip(cells) {
                *line += &match side {
                    Alignment::Left => format!("{gap}{cell:<width$}"),
                    Alignment::Right => format!("{gap}{cell:>width$}"),
                };
            }
        }
        lines
            .iter()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = TextTable::new(&[("a", 1000, ""), ("longer", 1, "so")])
            .left("name", |row| row.0)
            .right("n", |row| row.1)
            .left("why", |row| row.2);

        assert_eq!(
            table.text(),
            "NAME       N  WHY\na       1000\nlonger     1  so\n"
        );
    }
}
