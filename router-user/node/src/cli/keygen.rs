//! `stream-router keygen`

use std::path::Path;

use super::outcome::{Outcome, print};
use stream_router::p2p::identity::{self, IdentityError};

/// Makes an identity and prints its peer id; with `if_missing`, that of one which is there.
pub(super) fn keygen(out: &Path, if_missing: bool) -> Outcome {
    let keypair = match identity::generate(out) {
        Err(IdentityError::Exists { .. }) if if_missing => identity::load(out)?,
        made => made?,
    };
    print(keypair.public().to_peer_id())
}
