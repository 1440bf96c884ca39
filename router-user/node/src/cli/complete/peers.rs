//! The peers of the running node, as candidates.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::candidate::Candidate;
use crate::cli::units::short_id;
use crate::cli::which::socket_or_running;
use crate::control::{PeerList, fetch};

/// How long a key press waits for a node.
const LIMIT: Duration = Duration::from_secs(1);

/// The peers of a node, which is asked once somebody wants to know.
pub(super) struct Peers {
    /// Control socket that was named, if one was.
    named: Option<PathBuf>,
    list: OnceCell<PeerList>,
}

impl Peers {
    /// Makes the peers of the node at the socket that was `named`, or else of the one that the command would ask.
    pub(super) fn asked_at(named: Option<PathBuf>) -> Self {
        Self {
            named,
            list: OnceCell::new(),
        }
    }

    /// Makes peers that are known.
    #[cfg(test)]
    pub(super) fn of(list: &PeerList) -> Self {
        Self {
            list: list.clone().into(),
            ..Self::asked_at(None)
        }
    }

    /// Returns what each peer is called.
    pub(super) fn names(&self) -> Vec<Candidate> {
        let peers = self.list().peers.iter();
        peers
            .map(|peer| {
                let meaning = format!("{}, {}", peer.state, peer.allowed_ips.join(", "));
                Candidate::new(peer.name.as_deref().unwrap_or(short_id(&peer.id)), Some(meaning))
            })
            .collect()
    }

    /// Returns the addresses of single hosts that are peers' own.
    pub(super) fn addresses(&self) -> Vec<Candidate> {
        let peers = self.list().peers.iter();
        peers
            .flat_map(|peer| {
                let nets = peer
                    .allowed_ips
                    .iter()
                    .filter_map(|net| net.parse::<IpNet>().ok());
                let hosts = nets.filter(|net| net.prefix_len() == net.max_prefix_len());
                let meaning = peer.name.clone().unwrap_or_else(|| short_id(&peer.id).to_owned());
                hosts.map(move |net| Candidate::new(&net.addr().to_string(), Some(meaning.clone())))
            })
            .collect()
    }

    /// A node that does not answer, or may not be asked, has none: a key press is no place for an error.
    fn list(&self) -> &PeerList {
        self.list.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else {
                return PeerList::default();
            };
            let Ok(socket) = socket_or_running(self.named.clone()) else {
                return PeerList::default();
            };
            let asked = runtime.block_on(async { tokio::time::timeout(LIMIT, fetch(&socket, "")).await });
            asked.ok().and_then(Result::ok).unwrap_or_default()
        })
    }
}
