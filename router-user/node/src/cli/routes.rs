//! `stream-router routes`

use super::request::or_dash;
use super::table::{Alignment, TextTable};
use crate::control::RouteList;

/// Returns a row for each prefix.
pub(super) fn lines(routes: &RouteList) -> String {
    let mut table = TextTable::new([
        ("prefix", Alignment::Left),
        ("from", Alignment::Left),
        ("peer", Alignment::Left),
    ]);
    for route in &routes.routes {
        table.push([
            route.prefix.to_string(),
            route.source.to_string(),
            or_dash(route.peer.as_deref()),
        ]);
    }
    table.text()
}
