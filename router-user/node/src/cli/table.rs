//! Aligned columns.

/// Alignment of the text in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alignment {
    /// Left, for text.
    Left,
    /// Right, for numbers.
    Right,
}

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct TextTable<const N: usize> {
    sides: [Alignment; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> TextTable<N> {
    /// Makes a table with this heading.
    pub(super) fn new(columns: [(&str, Alignment); N]) -> Self {
        Self {
            sides: columns.map(|(_, side)| side),
            rows: vec![columns.map(|(name, _)| name.to_uppercase())],
        }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Returns the lines, without spaces at their ends.
    pub(super) fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(widths).zip(self.sides);
            let cells = cells.map(|((cell, width), side)| match side {
                Alignment::Left => format!("{cell:<width$}"),
                Alignment::Right => format!("{cell:>width$}"),
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = TextTable::new([
            ("name", Alignment::Left),
            ("n", Alignment::Right),
            ("why", Alignment::Left),
        ]);
        table.push(["a".to_owned(), "1000".to_owned(), String::new()]);
        table.push(["longer".to_owned(), "1".to_owned(), "so".to_owned()]);

        assert_eq!(
            table.text(),
            "NAME       N  WHY\na       1000\nlonger     1  so\n"
        );
    }
}
