//! `stream-router counters`

use super::table::TextTable;
use crate::control::CounterList;

/// Returns a row for each counter; those at 0 only if `all`.
pub(super) fn lines(counters: &CounterList, all: bool) -> String {
    let counters = counters.counters.iter();
    let shown: Vec<_> = counters.filter(|counter| all || counter.value > 0).collect();
    let table = TextTable::new(&shown)
        .left("counter", |counter| &counter.name)
        .right("value", |counter| counter.value)
        .left("from", |counter| counter.origin)
        .left("kind", |counter| counter.kind)
        .left("meaning", |counter| &counter.meaning);
    table.text()
}
