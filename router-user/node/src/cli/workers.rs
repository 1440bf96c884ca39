//! `stream-router workers`

use super::table::{Alignment, TextTable};
use super::units::bytes;
use crate::control::WorkerList;

/// Returns a row for each worker.
pub(super) fn lines(workers: &WorkerList) -> String {
    let mut table = TextTable::new([
        ("worker", Alignment::Right),
        ("state", Alignment::Left),
        ("thread", Alignment::Left),
        ("ring", Alignment::Right),
        ("fill", Alignment::Right),
        ("sockets", Alignment::Right),
        ("flows", Alignment::Right),
        ("packets", Alignment::Right),
        ("bytes", Alignment::Right),
        ("wakeups", Alignment::Right),
    ]);
    for worker in &workers.workers {
        table.push([
            worker.id.to_string(),
            worker.state.to_string(),
            worker.thread.clone(),
            bytes(worker.ring_bytes),
            format!("{:.0} %", worker.fill * 100.0),
            worker.sockets.to_string(),
            worker.flows.to_string(),
            worker.packets.to_string(),
            bytes(worker.bytes),
            worker.wakeups.to_string(),
        ]);
    }
    table.text()
}
