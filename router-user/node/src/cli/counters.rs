//! `stream-router counters`

use super::table::{Side, Table};
use crate::control::Counters;

/// A row for each counter; those at 0 only if `all`.
pub(super) fn lines(counters: &Counters, all: bool) -> String {
    let mut table = Table::new([
        ("counter", Side::Left),
        ("value", Side::Right),
        ("from", Side::Left),
        ("kind", Side::Left),
        ("meaning", Side::Left),
    ]);
    let shown = counters
        .counters
        .iter()
        .filter(|counter| all || counter.value > 0);
    for counter in shown {
        table.push([
            counter.name.clone(),
            counter.value.to_string(),
            counter.origin.to_string(),
            counter.kind.to_string(),
            counter.meaning.clone(),
        ]);
    }
    table.text()
}
