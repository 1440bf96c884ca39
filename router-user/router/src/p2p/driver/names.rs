//! What names of peers stand for.

use tokio::time::Instant;

use super::Driver;
use crate::p2p::{address::ip_of, dial_error::DialFailure, names::Answer};

impl Driver {
    /// Takes in what a name of a peer stands for.
    pub(super) fn handle_name(&mut self, answer: Answer, now: Instant) {
        let Answer {
            peer,
            named,
            addresses,
        } = answer;
        if !self.redials.contains(peer) {
            return;
        }
        let is_present = self.connections.is_present(peer);
        let addresses = match addresses {
            Ok(addresses) => {
                for ip in addresses.iter().filter_map(ip_of) {
                    self.state.handshakes.handle_peer_at(peer, ip);
                }
                Some(addresses)
            }
            Err(error) => {
                if !is_present {
                    self.report_dial_failure(peer, DialFailure::of_lookup(&error), None, now);
                }
                if !error.is_final() {
                    // What the name stood for is as good as it was.
                    return;
                }
                None
            }
        };
        tracing::debug!(%peer, name = %named, ?addresses, "looked up a name of a peer");
        let connections = &self.connections;
        let is_present = |uplink| connections.is_present_by((peer, uplink));
        self.redials
            .set_answer(peer, &named, addresses.as_deref(), is_present, now);
    }
}
