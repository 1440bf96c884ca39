//! `stream-router streams`

use super::ask::or_dash;
use super::table::{Side, Table};
use super::units::{bytes, short_id};
use crate::control::Streams;

/// A row for each stream.
pub(super) fn lines(streams: &Streams) -> String {
    let mut table = Table::new([
        ("peer", Side::Left),
        ("stream", Side::Right),
        ("state", Side::Left),
        ("open", Side::Left),
        ("transport", Side::Left),
        ("frames", Side::Right),
        ("queued", Side::Right),
        ("pressed", Side::Left),
        ("refused", Side::Right),
        ("dropped", Side::Right),
        ("marked", Side::Right),
    ]);
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    for stream in &streams.streams {
        table.push([
            short_id(&stream.peer).to_owned(),
            stream.index.to_string(),
            stream.state.to_string(),
            yes_no(stream.open),
            or_dash(stream.transport),
            stream.frames.to_string(),
            bytes(stream.queued_bytes),
            yes_no(stream.pressed),
            stream.refused.to_string(),
            stream.dropped.to_string(),
            stream.marked.to_string(),
        ]);
    }
    table.text()
}
