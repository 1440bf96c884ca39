//! The sections that a router for embedders has as well: the library validates them, here they get their lines.

use std::collections::HashMap;
use std::sync::Arc;

use super::memory::Sizes;
use super::problem::{Place, Problems};
use super::reader::Table;
use stream_router::config::StreamRouterConfig;
use stream_router::config::value::{Value, Values};

const SECTIONS: [&str; 3] = ["workers", "connections", "streams"];

/// Reads the three sections of a document, in which `sizes` stand for what is not said; with a problem in one the defaults
/// stand in.
pub(super) fn read(
    root: &mut Table<'_>,
    sizes: Option<Sizes>,
    problems: &mut Problems,
) -> StreamRouterConfig {
    let mut lines = HashMap::new();
    let mut sections = Values::new();
    for name in SECTIONS {
        if let Some(value) = root.value(name, &mut lines) {
            sections.insert(name.to_owned(), value);
        }
    }
    if let Some(sizes) = sizes {
        unless_said(&mut sections, "connections", "max_entries", sizes.max_entries);
        unless_said(&mut sections, "workers", "queue_size", sizes.queue_size);
    }
    StreamRouterConfig::from_values(&sections).unwrap_or_else(|error| {
        for problem in error.problems() {
            let field = problem.field();
            // What is absent would have to be written in its section.
            let section = || lines.get(field.split('.').next()?);
            let line = lines.get(field).or_else(section).copied();
            let place = Place {
                file: Arc::clone(&root.place().file),
                line: line.unwrap_or(root.place().line),
                field: field.to_owned(),
            };
            problems.add(&place, problem.wrong(), problem.allowed());
        }
        StreamRouterConfig::default()
    })
}

fn unless_said(sections: &mut Values, section: &str, field: &str, value: u32) {
    let section = sections
        .entry(section.to_owned())
        .or_insert_with(|| Values::new().into());
    // What is no section is reported when it is read.
    if let Value::Table(fields) = section {
        fields.entry(field.to_owned()).or_insert(value.into());
    }
}
