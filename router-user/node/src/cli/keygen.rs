//! `stream-router keygen`

use std::path::Path;

use super::outcome::{Outcome, print};
use stream_router::p2p::identity;

/// Makes an identity and prints its peer id.
pub(super) fn keygen(out: &Path) -> Outcome {
    let keypair = identity::generate(out)?;
    print(keypair.public().to_peer_id())
}
