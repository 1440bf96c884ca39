//! `stream-router streams`

use super::request::or_dash;
use super::table::TextTable;
use super::units::{bytes, short_name};
use crate::control::StreamList;

/// Returns a row for each stream.
pub(super) fn lines(streams: &StreamList) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let table = TextTable::new(&streams.streams)
        .left("peer", |stream| {
            short_name(stream.peer_name.as_deref(), &stream.peer)
        })
        .right("stream", |stream| stream.index)
        .left("state", |stream| stream.state)
        .left("open", |stream| yes_no(stream.open))
        .left("transport", |stream| or_dash(stream.transport))
        .right("frames", |stream| stream.frames)
        .right("queued", |stream| bytes(stream.queued_bytes))
        .left("pressed", |stream| yes_no(stream.pressed))
        .right("refused", |stream| stream.refused)
        .right("dropped", |stream| stream.dropped)
        .right("marked", |stream| stream.marked);
    table.text()
}
