//! `stream-router peers`

use super::request::or_dash;
use super::units::{bytes, seconds};
use crate::control::{PeerList, PeerState, PeerStatus};

/// Returns a paragraph for each peer.
pub(super) fn lines(peers: &PeerList) -> String {
    if peers.peers.is_empty() {
        return "no peers are configured".to_owned();
    }
    peers.peers.iter().map(peer).collect::<Vec<_>>().join("\n\n")
}

fn peer(peer: &PeerStatus) -> String {
    let state = match peer.state {
        PeerState::Disconnected => "disconnected, waits for the peer to dial".to_owned(),
        PeerState::Idle => "idle, dialled when there is something to send".to_owned(),
        state => state.to_string(),
    };
    let mut lines = vec![("state", state)];
    if let (Some(address), Some(transport), Some(direction)) = (&peer.address, peer.transport, peer.direction)
    {
        lines.push(("address", format!("{address} ({transport}, {direction})")));
        lines.push(("rtt", or_dash(peer.rtt_ms.map(|rtt| format!("{rtt:.2} ms")))));
        let age = peer
            .handshake_age_seconds
            .map(|age| format!("{} ago", seconds(age)));
        lines.push(("handshake", or_dash(age)));
    }
    if let Some(error) = peer
        .last_dial_error
        .as_ref()
        .filter(|_| peer.state != PeerState::Connected)
    {
        lines.push(("error", error.clone()));
    }
    lines.push(("allowed", peer.allowed_ips.join(", ")));
    if let Some(rate) = peer.rate_bytes_per_second {
        lines.push(("rate", format!("at most {}/s to the peer", bytes(rate.into()))));
    }
    lines.extend([
        (
            "streams",
            format!("{}, on {} connections", peer.streams, peer.connections),
        ),
        (
            "sent",
            format!("{} frames, {}", peer.tx_frames, bytes(peer.tx_bytes)),
        ),
        (
            "received",
            format!("{} frames, {}", peer.rx_frames, bytes(peer.rx_bytes)),
        ),
    ]);
    let lines = lines
        .into_iter()
        .map(|(name, value)| format!("\n  {name:<10}{value}"));
    format!("peer {}{}", peer.id, lines.collect::<String>())
}
