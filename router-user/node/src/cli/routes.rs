//! `stream-router routes`

use super::request::or_dash;
use super::table::TextTable;
use super::units::called;
use crate::control::RouteList;

/// Returns a row for each prefix.
pub(super) fn lines(routes: &RouteList) -> String {
    let table = TextTable::new(&routes.routes)
        .left("prefix", |route| route.prefix)
        .left("from", |route| route.source)
        .left("peer", |route| {
            let name = route.peer_name.as_deref();
            or_dash(route.peer.as_ref().map(|id| called(name, id)))
        });
    table.text()
}
