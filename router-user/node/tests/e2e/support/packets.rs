//! Waits until a pair carries packets.

use std::time::Duration;

use anyhow::Result;

use xtask::lab::Pair;
use xtask::lab::probe::answers;
use xtask::lab::process::until;

const LIMIT: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until the second host answers the first through the tunnel.
pub(crate) fn wait_for_packets(pair: &Pair) -> Result<()> {
    until("packets arrive", LIMIT, || {
        Ok(answers(&pair.a.host, pair.b.v4, PATIENCE)?.then_some(()))
    })?;
    Ok(())
}
