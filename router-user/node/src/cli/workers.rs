//! `stream-router workers`

use super::table::TextTable;
use super::units::bytes;
use crate::control::WorkerList;

/// Returns a row for each worker.
pub(super) fn lines(workers: &WorkerList) -> String {
    let table = TextTable::new(&workers.workers)
        .right("worker", |worker| worker.id)
        .left("state", |worker| worker.state)
        .left("thread", |worker| &worker.thread)
        .right("ring", |worker| bytes(worker.ring_bytes))
        .right("fill", |worker| format!("{:.0} %", worker.fill * 100.0))
        .right("sockets", |worker| worker.sockets)
        .right("flows", |worker| worker.flows)
        .right("packets", |worker| worker.packets)
        .right("bytes", |worker| bytes(worker.bytes))
        .right("wakeups", |worker| worker.wakeups);
    table.text()
}
