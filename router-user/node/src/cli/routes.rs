//! `stream-router routes`

use super::ask::or_dash;
use super::table::{Side, Table};
use crate::control::Routes;

/// A row for each prefix.
pub(super) fn lines(routes: &Routes) -> String {
    let mut table = Table::new([("prefix", Side::Left), ("from", Side::Left), ("peer", Side::Left)]);
    for route in &routes.routes {
        table.push([
            route.prefix.to_string(),
            route.source.to_string(),
            or_dash(route.peer.as_deref()),
        ]);
    }
    table.text()
}
