//! The peers of the running node, as candidates.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::candidate::Candidate;
use crate::cli::units::short_id;
use crate::cli::which::socket_or_running;
use crate::control::{PeerList, fetch};
use crate::node::peer_files::written_peers;

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

    /// Returns what each peer is called that the configuration has, those that are disabled included, and each of the running
    /// node: whoever may not read the file may still ask the node.
    pub(super) fn configured(&self, file: Option<&Path>) -> Vec<Candidate> {
        let written = file.map(of_file).unwrap_or_default();
        let mut all = self.names();
        for peer in written {
            if !all.iter().any(|one| one.text == peer.text) {
                all.push(peer);
            }
        }
        all
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

/// Returns the peers of a configuration and its drop-ins. One that cannot be read, or is wrong, has none.
fn of_file(main: &Path) -> Vec<Candidate> {
    let Ok(peers) = written_peers(main) else {
        return Vec::new();
    };
    let peers = peers.iter();
    peers
        .map(|peer| {
            let meaning = if peer.is_enabled {
                peer.networks
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            } else {
                "disabled".to_owned()
            };
            Candidate::new(peer.name.as_deref().unwrap_or(short_id(&peer.id)), Some(meaning))
        })
        .collect()
}
