//! `stream-router streams`

use super::request::or_dash;
use super::table::{Alignment, TextTable};
use super::units::{bytes, short_id};
use crate::control::StreamList;

/// Returns a row for each stream.
pub(super) fn lines(streams: &StreamList) -> String {
    let mut table = TextTable::new([
        ("peer", Alignment::Left),
        ("stream", Alignment::Right),
        ("state", Alignment::Left),
        ("open", Alignment::Left),
        ("transport", Alignment::Left),
        ("frames", Alignment::Right),
        ("queued", Alignment::Right),
        ("pressed", Alignment::Left),
        ("refused", Alignment::Right),
        ("dropped", Alignment::Right),
        ("marked", Alignment::Right),
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
