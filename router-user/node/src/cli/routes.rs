//! `stream-router routes`

use super::request::or_dash;
use super::table::TextTable;
use crate::control::RouteList;

/// Returns a row for each prefix.
pub(super) fn lines(routes: &RouteList) -> String {
    let table = TextTable::new(&routes.routes)
        .left("prefix", |route| route.prefix)
        .left("from", |route| route.source)
        .left("peer", |route| or_dash(route.peer.as_deref()));
    table.text()
}
