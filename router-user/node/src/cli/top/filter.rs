//! Decides which peers, streams and flows are shown.

use ipnet::IpNet;

use super::columns::RowPeer;
use super::model::Model;
use crate::control::{Flow, FlowQuery, PeerStatus, StreamStatus, find, parse_prefix};

/// Number of flows that are asked for, those with most bytes. A screen does not show as many.
const MAX_FLOWS: u32 = 500;

/// A part of a peer's name, id or address, an address or prefix, or a peer that was chosen from a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    text: String,
    prefix: Option<IpNet>,
    peer: Option<String>,
}

impl Filter {
    /// Makes a filter of the text; an empty one lets everything through.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.trim().to_owned(),
            prefix: parse_prefix(text.trim()).ok(),
            peer: None,
        }
    }

    /// Makes a filter that lets through what is of one peer.
    pub(super) fn of_peer(peer: RowPeer) -> Self {
        Self {
            text: peer.name,
            prefix: None,
            peer: Some(peer.id),
        }
    }

    /// Returns the text as it was typed; empty if the filter lets everything through.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether it lets through what is of one peer that was chosen.
    pub(super) fn is_of_peer(&self) -> bool {
        self.peer.is_some()
    }

    pub(super) fn shows_peer(&self, peer: &PeerStatus) -> bool {
        if let Some(id) = &self.peer {
            return *id == peer.id;
        }
        let inside = |text: &String| text.parse().is_ok_and(|net| self.touches(net));
        self.is_in(&peer.id)
            || self.is_in_known(peer.name.as_ref())
            || peer.address.as_ref().is_some_and(|address| self.is_in(address))
            || peer.allowed_ips.iter().any(|net| self.is_in(net) || inside(net))
    }

    pub(super) fn shows_stream(&self, stream: &StreamStatus) -> bool {
        if let Some(id) = &self.peer {
            return *id == stream.peer;
        }
        self.is_in(&stream.peer) || self.is_in_known(stream.peer_name.as_ref())
    }

    pub(super) fn shows_flow(&self, flow: &Flow) -> bool {
        if self.peer.is_some() {
            return self.peer == flow.peer;
        }
        let ends = [flow.source, flow.destination];
        if self.prefix.is_some() {
            return ends.into_iter().any(|end| self.touches(end.into()));
        }
        self.is_in_known(flow.peer.as_ref())
            || self.is_in_known(flow.peer_name.as_ref())
            || ends.into_iter().any(|end| self.is_in(&end.to_string()))
    }

    /// Returns the query to the node, which is filtered there too, so that other flows do not push out those that
    /// match.
    pub(super) fn query(&self, model: &Model) -> FlowQuery {
        let all = FlowQuery {
            limit: MAX_FLOWS,
            ..FlowQuery::default()
        };
        if self.peer.is_some() {
            let peer = self.peer.clone();
            return FlowQuery { peer, ..all };
        }
        if self.text.is_empty() {
            return all;
        }
        if self.prefix.is_some() {
            return FlowQuery {
                address: self.prefix,
                ..all
            };
        }
        let peers = model.snapshot().map_or(&[][..], |snapshot| &snapshot.peers);
        match find(peers.iter().map(|peer| &peer.now), &self.text) {
            Ok(meant) => FlowQuery {
                peer: Some(meant.id.clone()),
                ..all
            },
            Err(_) => all,
        }
    }

    /// Compares without regard to case: ids have letters of both cases, but users do not type them so.
    fn is_in(&self, text: &str) -> bool {
        text.to_ascii_lowercase()
            .contains(&self.text.to_ascii_lowercase())
    }

    fn is_in_known(&self, text: Option<&String>) -> bool {
        text.is_some_and(|text| self.is_in(text))
    }

    fn touches(&self, net: IpNet) -> bool {
        self.prefix
            .is_some_and(|prefix| prefix.contains(&net) || net.contains(&prefix))
    }
}
