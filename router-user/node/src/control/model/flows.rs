//! `GET /v1/flows`

use serde::{Deserialize, Serialize};

use super::{IpProtocol, Resource};

/// Flows between this node and its peers: packets that it captures, joined with those that come back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowList {
    /// Live flows that this node captures.
    pub live: u64,
    /// Live flows that come from peers.
    #[serde(default)]
    pub rx_live: u64,
    /// Number of flows that match the query.
    pub matched: u64,
    /// Number of flows that the table has room for, in each direction.
    pub max_entries: u64,
    /// The first of the flows that match, as sorted.
    pub flows: Vec<Flow>,
}

/// A flow as this node sends it, with what a peer sends back. If the peer alone sends, it is a flow as this node would.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Flow {
    /// Protocol behind the IP header.
    pub protocol: IpProtocol,
    /// Source address.
    pub source: std::net::IpAddr,
    /// Source port, or the identifier of a ping; 0 if the protocol has neither.
    pub source_port: u16,
    /// Destination address.
    pub destination: std::net::IpAddr,
    /// Destination port; 0 if the protocol has none.
    pub destination_port: u16,
    /// Number of the worker that the flow is steered to; `None` if this node captures nothing of it.
    pub worker: Option<u32>,
    /// Id of the peer at the other end, if there is one.
    pub peer: Option<String>,
    /// Name of this peer, if it has one.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// Index of the peer's stream that the flow uses, once a packet was queued for it.
    pub stream: Option<u32>,
    /// Seconds since the first packet, of either direction.
    pub age_seconds: f64,
    /// Seconds since the last packet, of either direction.
    pub idle_seconds: f64,
    /// Packets captured; a super-packet is one.
    pub packets: u64,
    /// Bytes captured, IP headers included.
    pub bytes: u64,
    /// Packets from the peer that the device took; a super-packet is as many as the peer sent it in.
    #[serde(default)]
    pub rx_packets: u64,
    /// Bytes of these packets, IP headers included.
    #[serde(default)]
    pub rx_bytes: u64,
}

impl Resource for FlowList {
    const PATH: &'static str = "/v1/flows";
}

impl Flow {
    /// Returns the packets of both directions.
    pub fn all_packets(&self) -> u64 {
        self.packets.saturating_add(self.rx_packets)
    }

    /// Returns the bytes of both directions.
    pub fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.rx_bytes)
    }
}
