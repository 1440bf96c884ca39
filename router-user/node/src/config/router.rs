//! The sections that a router for embedders has as well: the library validates them, here they get their lines.

use std::collections::HashMap;

use super::problem::{Place, Problems};
use super::reader::Table;
use stream_router::config::StreamRouterConfig;
use stream_router::config::value::Values;

const SECTIONS: [&str; 3] = ["workers", "connections", "streams"];

/// Reads the three sections of a document; with a problem in one the defaults stand in.
pub(super) fn read(root: &mut Table<'_>, problems: &mut Problems) -> StreamRouterConfig {
    let mut lines = HashMap::new();
    let mut sections = Values::new();
    for name in SECTIONS {
        if let Some(value) = root.value(name, &mut lines) {
            sections.insert(name.to_owned(), value);
        }
    }
    StreamRouterConfig::from_values(&sections).unwrap_or_else(|error| {
        for problem in error.problems() {
            let field = problem.field();
            // What is absent would have to be written in its section.
            let section = || lines.get(field.split('.').next()?);
            let line = lines.get(field).or_else(section).copied();
            let place = Place {
                line: line.unwrap_or(root.place().line),
                field: field.to_owned(),
            };
            problems.add(&place, problem.wrong(), problem.allowed());
        }
        StreamRouterConfig::default()
    })
}
