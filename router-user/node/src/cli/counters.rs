//! `stream-router counters`

use super::table::{Alignment, TextTable};
use crate::control::CounterList;

/// Returns a row for each counter; those at 0 only if `all`.
pub(super) fn lines(counters: &CounterList, all: bool) -> String {
    let mut table = TextTable::new([
        ("counter", Alignment::Left),
        ("value", Alignment::Right),
        ("from", Alignment::Left),
        ("kind", Alignment::Left),
        ("meaning", Alignment::Left),
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
