//! `stream-router workers`

use super::table::{Side, Table};
use super::units::bytes;
use crate::control::Workers;

/// A row for each worker.
pub(super) fn lines(workers: &Workers) -> String {
    let mut table = Table::new([
        ("worker", Side::Right),
        ("state", Side::Left),
        ("thread", Side::Left),
        ("ring", Side::Right),
        ("fill", Side::Right),
        ("sockets", Side::Right),
        ("flows", Side::Right),
        ("packets", Side::Right),
        ("bytes", Side::Right),
        ("wakeups", Side::Right),
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
