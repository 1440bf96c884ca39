//! `stream-router check`

use std::collections::BTreeMap;
use std::path::Path;

use super::outcome::{Outcome, print};
use crate::config::Config;
use crate::device::Netlink;
use crate::node::Overlaps;

/// Validates a configuration, and with `live` looks whether this host can have it.
pub(super) fn check(file: &Path, live: bool) -> Outcome {
    let config = Config::load(file)?;
    let mut kept = Vec::new();
    if live {
        kept = look(&config)?.refuse()?;
    }
    for overlap in kept {
        print(format_args!("note: {overlap}"))?;
    }
    print(format_args!(
        "{}: valid, {} peers",
        file.display(),
        config.peers().len()
    ))
}

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
