//! The `[transport]` section.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::problem::Problems;
use super::reader::Table;

const ALLOWED: &str = "\"tcp\" and \"quic\", each once, the preferred one first";

/// Which of a peer's addresses are dialled first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preference {
    quic_first: bool,
}

impl Preference {
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let mut names = Vec::new();
        for found in table.strings("prefer", ALLOWED, problems).unwrap_or_default() {
            if !["tcp", "quic"].contains(&found.value.as_str()) {
                problems.add(
                    &found.place,
                    format!("{:?} is no transport", found.value),
                    ALLOWED,
                );
            } else if names.contains(&found.value) {
                problems.add(
                    &found.place,
                    format!("{:?} is listed twice", found.value),
                    ALLOWED,
                );
            } else {
                names.push(found.value);
            }
        }
        table.finish(problems);
        Self {
            quic_first: names.first().is_some_and(|name| name == "quic"),
        }
    }

    /// Puts the preferred transport's addresses first; each transport's own stay in their order.
    pub(super) fn sort(&self, addresses: &mut [Multiaddr]) {
        addresses.sort_by_key(|address| is_quic(address) != self.quic_first);
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| protocol == Protocol::QuicV1)
}
