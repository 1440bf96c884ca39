//! Reads a parsed TOML document field by field, so that one mistake does not hide the next.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Place, Problems};

/// Intervals below would be work without a result, above it nobody would see one.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Turns byte offsets of a text into line numbers.
pub struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub fn new(text: &str) -> Self {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// Line of the byte at `offset`, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

/// A table whose fields are asked for by name; [`Table::finish`] reports the fields nobody asked for.
pub struct Table<'a> {
    place: Place,
    lines: &'a Lines,
    entries: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    /// The table itself is wrong, so what it lacks goes without saying.
    reported: bool,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub fn root(entries: &'a DeTable<'a>, lines: &'a Lines) -> Self {
        Self::new(
            Place {
                line: 1,
                field: String::new(),
            },
            lines,
            Some(entries),
        )
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

    /// Place of the table.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Place of a field that is absent, which is where it would have to be written.
    pub fn absent(&self, name: &str) -> Place {
        self.place.field(name, self.place.line)
    }

    /// The table `name`; an empty one when the file has none.
    pub fn table(&mut self, name: &'static str, problems: &mut Problems) -> Table<'a> {
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

    /// The tables of the array `name`; none when the file has none.
    pub fn tables(&mut self, name: &'static str, problems: &mut Problems) -> Vec<Table<'a>> {
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

    /// The string `name`, which must be there.
    pub fn required_string(
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

    /// The string `name`, if present.
    pub fn string(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Located<String>> {
        let (place, value) = self.take(name)?;
        string_at(place, value, allowed, problems)
    }

    /// The strings of the array `name`, if present; what is no array, or an element that is no string, is reported
    /// and left out.
    pub fn strings(
        &mut self,
        name: &'static str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Vec<Located<String>>> {
        let (place, value) = self.take(name)?;
        self.strings_at(&place, value, allowed, problems)
    }

    /// As [`Table::strings`], of an array that must be there and have an element.
    pub fn some_strings(
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

    /// The integer `name`, if present and in `range`.
    pub fn integer(
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

    /// The boolean `name`, if present.
    pub fn boolean(&mut self, name: &'static str, problems: &mut Problems) -> Option<bool> {
        let (place, value) = self.take(name)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            expected(&place, "a boolean", value, "true or false", problems);
        }
        boolean
    }

    /// The duration `name`, a string such as "5s", if present and in [`DURATIONS`].
    pub fn duration(&mut self, name: &'static str, problems: &mut Problems) -> Option<Duration> {
        const ALLOWED: &str = "a duration from \"100ms\" to \"1h\", such as \"5s\"";
        let Located { place, value } = self.string(name, ALLOWED, problems)?;
        match humantime::parse_duration(&value) {
            Ok(duration) if DURATIONS.contains(&duration) => return Some(duration),
            Ok(_) => problems.add(&place, format!("{value} is out of range"), ALLOWED),
            Err(error) => problems.add(&place, format!("{value:?} is no duration: {error}"), ALLOWED),
        }
        None
    }

    /// The number `name`, if present and above 0, at most 1.
    pub fn share(&mut self, name: &'static str, problems: &mut Problems) -> Option<Located<f64>> {
        const ALLOWED: &str = "a number above 0, at most 1";
        let (place, value) = self.take(name)?;
        let number = match value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
            other => {
                expected(&place, "a number", other, ALLOWED, problems);
                return None;
            }
        };
        match number {
            Some(value) if value > 0.0 && value <= 1.0 => Some(Located { place, value }),
            _ => {
                problems.add(&place, "is out of range", ALLOWED);
                None
            }
        }
    }

    /// Reports every field that was never asked for.
    pub fn finish(self, problems: &mut Problems) {
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
        let lines = Lines::new("ab\n\ncd");

        let found: Vec<usize> = (0..6).map(|offset| lines.line_of(offset)).collect();

        assert_eq!(found, [1, 1, 1, 2, 3, 3]);
    }
}
