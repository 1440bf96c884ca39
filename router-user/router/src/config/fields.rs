//! Reads values field by field, so that one mistake does not hide the next.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problems;
use super::value::{Value, Values};

/// Intervals below would be work without a result, above it nobody would see one.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// A section whose fields are asked for by name; [`Fields::finish`] reports the fields nobody asked for.
pub(super) struct Fields<'a> {
    /// Its name; none at the top.
    section: Option<&'static str>,
    values: Option<&'a Values>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Returns the sections themselves.
    pub(super) fn top(values: &'a Values) -> Self {
        Self {
            section: None,
            values: Some(values),
            known: Vec::new(),
        }
    }

    /// Returns the full name of a field.
    pub(super) fn name(&self, field: &str) -> String {
        match self.section {
            Some(section) => format!("{section}.{field}"),
            None => field.to_owned(),
        }
    }

    /// Returns the section `name`; an empty one when there is none.
    pub(super) fn section(&mut self, name: &'static str, problems: &mut Problems) -> Fields<'a> {
        let values = match self.take(name) {
            None => None,
            Some(Value::Table(values)) => Some(values),
            Some(other) => {
                let wrong = format!("expected a table, found {}", other.kind());
                problems.add(self.name(name), wrong, format!("a [{name}] section"));
                None
            }
        };
        Self {
            section: Some(name),
            values,
            known: Vec::new(),
        }
    }

    /// Returns the integer `name`, if present and in `range`.
    pub(super) fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let allowed = format!("an integer from {} to {}", range.start(), range.end());
        match self.take(name)? {
            Value::Integer(value) => {
                let found = u32::try_from(*value).ok().filter(|value| range.contains(value));
                if found.is_none() {
                    problems.add(self.name(name), format!("{value} is out of range"), allowed);
                }
                found
            }
            other => {
                let wrong = format!("expected an integer, found {}", other.kind());
                problems.add(self.name(name), wrong, allowed);
                None
            }
        }
    }

    /// Returns the duration `name`, a string such as "5s", if present and in [`DURATIONS`].
    pub(super) fn duration(&mut self, name: &'static str, problems: &mut Problems) -> Option<Duration> {
        const ALLOWED: &str = "a duration from \"100ms\" to \"1h\", such as \"5s\"";
        let wrong = match self.take(name)? {
            Value::Text(text) => match humantime::parse_duration(text) {
                Ok(duration) if DURATIONS.contains(&duration) => return Some(duration),
                Ok(_) => format!("{text} is out of range"),
                Err(error) => format!("{text:?} is no duration: {error}"),
            },
            other => format!("expected a string, found {}", other.kind()),
        };
        problems.add(self.name(name), wrong, ALLOWED);
        None
    }

    /// Returns the number `name`, if present and above 0, at most 1.
    pub(super) fn share(&mut self, name: &'static str, problems: &mut Problems) -> Option<f64> {
        let wrong = match self.take(name)? {
            // Only 1 itself is both an integer and a share.
            Value::Integer(1) => return Some(1.0),
            Value::Float(value) if *value > 0.0 && *value <= 1.0 => return Some(*value),
            Value::Integer(_) | Value::Float(_) => "is out of range".to_owned(),
            other => format!("expected a number, found {}", other.kind()),
        };
        problems.add(self.name(name), wrong, "a number above 0, at most 1");
        None
    }

    /// Reports every field that was never asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        let names = self.values.into_iter().flat_map(Values::keys);
        for name in names.filter(|name| !self.known.contains(&name.as_str())) {
            problems.add(self.name(name), "unknown field", self.known.join(", "));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.values?.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_parameter_is_named_with_its_kind() {
        let values = Values::from([
            ("workers".to_owned(), Value::Integer(3)),
            ("n".to_owned(), Value::Other("a boolean")),
            ("most".to_owned(), Value::Integer(-1)),
            ("share".to_owned(), Value::Text("all".to_owned())),
        ]);
        let mut problems = Problems::default();
        let mut fields = Fields::top(&values);

        fields.section("workers", &mut problems).finish(&mut problems);
        assert_eq!(fields.integer("n", 1..=2, &mut problems), None);
        assert_eq!(fields.integer("most", 1..=2, &mut problems), None);
        assert_eq!(fields.share("share", &mut problems), None);
        fields.finish(&mut problems);

        assert_eq!(
            problems.unless_any(()).unwrap_err().to_string(),
            "most: -1 is out of range (allowed: an integer from 1 to 2)\n\
             n: expected an integer, found a boolean (allowed: an integer from 1 to 2)\n\
             share: expected a number, found a string (allowed: a number above 0, at most 1)\n\
             workers: expected a table, found an integer (allowed: a [workers] section)"
        );
    }
}
