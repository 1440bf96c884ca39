//! The text of a dial error.

use libp2p::swarm::DialError;

use stream_router_engine::causes::with_sources;

/// Says why dialling one address failed, for an operator.
pub(super) fn dial_error_text(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, address } => {
            format!("another peer, {obtained}, answers at {address}; correct its id or address")
        }
        DialError::Transport(attempts) => {
            let text = attempts
                .iter()
                .map(|(address, error)| format!("{address}: {}", with_sources(error)));
            text.collect::<Vec<_>>().join("; ")
        }
        DialError::NoAddresses => "its address is one of this node".to_owned(),
        error => with_sources(error),
    }
}
