//! Reads a parsed TOML document field by field, so that one mistake does not hide the next.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Place, Problems};
use stream_router::config::value::{Value, Values};

/// Turns byte offsets of a file's text into line numbers.
pub(super) struct Lines {
    file: Arc<Path>,
    starts: Vec<usize>,
}

impl Lines {
    pub(super) fn new(file: Arc<Path>, text: &str) -> Self {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            file,
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// Returns the place of a field on a line.
    pub(super) fn place(&self, line: usize, field: &str) -> Place {
        let file = Arc::clone(&self.file);
        let field = field.to_owned();
        Place { file, line, field }
    }

    /// Returns the line of the byte at `offset`, from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

/// Returns the document of a text, unless its syntax is wrong, which is reported.
pub(super) fn document<'a>(
    text: &'a str,
    lines: &Lines,
    problems: &mut Problems,
) -> Option<Spanned<DeTable<'a>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = lines.line_of(error.span().map_or(0, |span| span.start));
        problems.add(&lines.place(line, "syntax"), error.message(), "a TOML document");
    }
    errors.is_empty().then_some(document)
}

/// A table whose fields are asked for by name; [`Table::finish`] reports the fields nobody asked for.
pub(super) struct Table<'a> {
    place: Place,
    lines: &'a Lines,
    entries: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    /// The table itself is wrong, so what it lacks goes without saying.
    reported: bool,
}

impl<'a> Table<'a> {
    /// Makes the table that is the document itself.
    pub(super) fn root(entries: &'a DeTable<'a>, lines: &'a Lines) -> Self {
        Self::new(lines.place(1, ""), lines, Some(entries))
    }

    fn new(place: Place, lines: &'a Lines, entries: Option<&'a DeTable<'a>>) -> Self {
        Self {
            place,
            lines,
            entries,
            known: Vec::new(),
            reported: false,
        }
    }

    /// Returns the place of the table.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the place of a field that is absent, which is where it would have to be written.
    pub(super) fn absent(&self, name: &str) -> Place {
        self.place.field(name, self.place.line)
    }

    /// Returns the table `name`; an empty one when the file has none.
    pub(super) fn table(&mut self, name: &'static str, problems: &mut Problems) -> Table<'a> {
        let Some((place, value)) = self.take(name) else {
            return Self::new(self.absent(name), self.lines, None);
        };
        let entries = value.as_table();
        if entries.is_none() {
            expected(&place, "a table", value, format!("a [{name}] section"), problems);
        }
        let mut table = Self::new(place, self.lines, entries);
        table.reported = entries.is_none();
        table
    }

    /// Returns the tables of the array `name`; none when the file has none.
    pub(super) fn tables(&mut self, name: &'static str, problems: &mut Problems) -> Vec<Table<'a>> {
        let Some((place, value)) = self.take(name) else {
            return Vec::new();
        };
        let sections = || format!("[[{name}]] sections");
        let Some(elements) = value.as_array() else {
            expected(&place, "an array of tables", value, sections(), problems);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let place = place.element(index, self.line_of(element));
            match element.get_ref().as_table() {
                Some(entries) => tables.push(Self::new(place, self.lines, Some(entries))),
                None => expected(&place, "a table", element.get_ref(), sections(), problems),
            }
        }
        tables
    }

    /// Returns the string `name`, which must be there.
    pub(super) fn required_string(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Located<String>> {
        let Some((place, value)) = self.take(name) else {
            self.missing(name, allowed, problems);
            return None;
        };
        string_at(place, value, allowed, problems)
    }

    /// Returns the string `name`, if present.
    pub(super) fn string(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Located<String>> {
        let (place, value) = self.take(name)?;
        string_at(place, value, allowed, problems)
    }

    /// Returns which of `values` the string `name` is, if present; another is reported as one that `is_none`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        values: &[(&str, T)],
        (is_none, allowed): (&str, &str),
        problems: &mut Problems,
    ) -> Option<T> {
        let Located { place, value } = self.string(name, allowed, problems)?;
        let chosen = values.iter().find(|(text, _)| *text == value);
        if chosen.is_none() {
            problems.add(&place, format!("{value:?} {is_none}"), allowed);
        }
        chosen.map(|(_, chosen)| *chosen)
    }

    /// Returns the strings of the array `name`, if present; what is no array, or an element that is no string, is
    /// reported and left out.
    pub(super) fn strings(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Vec<Located<String>>> {
        let (place, value) = self.take(name)?;
        self.strings_at(&place, value, allowed, problems)
    }

    /// Returns what [`Table::strings`] does, of an array that must be there and have an element.
    pub(super) fn some_strings(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Vec<Located<String>> {
        let at_least_one = || format!("at least one element, {allowed}");
        let Some((place, value)) = self.take(name) else {
            self.missing(name, &at_least_one(), problems);
            return Vec::new();
        };
        if value.as_array().is_some_and(|elements| elements.is_empty()) {
            problems.add(&place, "is empty", at_least_one());
        }
        self.strings_at(&place, value, allowed, problems)
            .unwrap_or_default()
    }

    /// Gives what stands at `name`, of whatever kind, to a reader that knows no lines; `lines` takes note of the lines.
    pub(super) fn value(&mut self, name: &'static str, lines: &mut HashMap<String, usize>) -> Option<Value> {
        let (place, value) = self.take(name)?;
        let DeValue::Table(entries) = value else {
            lines.insert(place.field, place.line);
            return Some(plain(value));
        };
        let mut values = Values::new();
        for (name, value) in entries {
            let name = name.get_ref();
            lines.insert(place.field(name, place.line).field, self.line_of(value));
            values.insert(name.to_string(), plain(value.get_ref()));
        }
        lines.insert(place.field, place.line);
        Some(values.into())
    }

    fn strings_at(
        &self,
        place: &Place,
        value: &DeValue<'_>,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Vec<Located<String>>> {
        let Some(elements) = value.as_array() else {
            expected(
                place,
                "an array of strings",
                value,
                format!("an array, each element {allowed}"),
                problems,
            );
            return None;
        };
        let strings = elements.iter().enumerate().filter_map(|(index, element)| {
            string_at(
                place.element(index, self.line_of(element)),
                element.get_ref(),
                allowed,
                problems,
            )
        });
        Some(strings.collect())
    }

    /// Returns the integer `name`, if present and in `range`.
    pub(super) fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<Located<u32>> {
        let (place, value) = self.take(name)?;
        let allowed = format!("an integer from {} to {}", range.start(), range.end());
        let Some(integer) = value.as_integer() else {
            expected(&place, "an integer", value, allowed, problems);
            return None;
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Some(Located { place, value }),
            Ok(_) | Err(_) => {
                problems.add(&place, format!("{integer} is out of range"), allowed);
                None
            }
        }
    }

    /// Returns the boolean `name`, if present.
    pub(super) fn boolean(&mut self, name: &'static str, problems: &mut Problems) -> Option<bool> {
        let (place, value) = self.take(name)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            expected(&place, "a boolean", value, "true or false", problems);
        }
        boolean
    }

    /// Reports every field that was never asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        let unknown = self
            .entries
            .into_iter()
            .flatten()
            .filter(|(name, _)| !self.known.contains(&name.get_ref().as_ref()));
        for (name, _) in unknown {
            let place = self
                .place
                .field(name.get_ref(), self.lines.line_of(name.span().start));
            problems.add(&place, "unknown field", self.known.join(", "));
        }
    }

    fn missing(&self, name: &str, allowed: &str, problems: &mut Problems) {
        if !self.reported {
            problems.add(&self.absent(name), "missing", allowed);
        }
    }

    fn take(&mut self, name: &'static str) -> Option<(Place, &'a DeValue<'a>)> {
        self.known.push(name);
        let value = self.entries?.get(name)?;
        Some((self.place.field(name, self.line_of(value)), value.get_ref()))
    }

    fn line_of(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.lines.line_of(value.span().start)
    }
}

fn string_at(
    place: Place,
    value: &DeValue<'_>,
    allowed: &str,
    problems: &mut Problems,
) -> Option<Located<String>> {
    match value.as_str() {
        Some(text) => Some(Located {
            place,
            value: text.to_owned(),
        }),
        None => {
            expected(&place, "a string", value, allowed, problems);
            None
        }
    }
}

fn expected(
    place: &Place,
    what: &str,
    found: &DeValue<'_>,
    allowed: impl Into<String>,
    problems: &mut Problems,
) {
    problems.add(
        place,
        format!("expected {what}, found {}", kind_of(found)),
        allowed,
    );
}

/// Returns `value` without its lines. A table in a section, which no parameter is, stays empty.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Value::Integer(value),
            Err(_too_large) if integer.as_str().starts_with('-') => Value::Integer(i128::MIN),
            Err(_too_large) => Value::Integer(i128::MAX),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(value) => Value::Float(value),
            Err(_no_number) => Value::Other("a float"),
        },
        DeValue::Table(_) => Value::Table(Values::new()),
        other => Value::Other(kind_of(other)),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_on_the_line_that_holds_it() {
        let lines = Lines::new(Path::new("sr.toml").into(), "ab\n\ncd");

        let found: Vec<usize> = (0..6).map(|offset| lines.line_of(offset)).collect();

        assert_eq!(found, [1, 1, 1, 2, 3, 3]);
    }
}
