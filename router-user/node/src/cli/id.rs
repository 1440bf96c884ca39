//! `stream-router id`

use std::path::Path;

use super::outcome::{Outcome, print};
use stream_router::p2p::identity;

/// Prints the peer id of an identity.
pub(super) fn id(key: &Path) -> Outcome {
    let keypair = identity::load(key)?;
    print(keypair.public().to_peer_id())
}
