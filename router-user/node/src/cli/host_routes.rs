//! The host's routes beside the networks of a configuration.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::device::Netlink;
use crate::node::Overlaps;

/// Looks for routes of the host that the networks of a configuration collide with.
///
/// # Errors
/// The routes cannot be listed, or the system gives no runtime.
pub(super) fn look(config: &Config) -> Result<Overlaps, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async { Overlaps::look(config, &BTreeMap::new(), &Netlink::open()?).await });
    Ok(found?)
}
