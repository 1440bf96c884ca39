//! `GET /v1/flows`

use serde::{Deserialize, Serialize};

use super::{IpProtocol, Resource};

/// Flows of packets that this node captures. What a peer sends back is a flow in the peer's own table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowList {
    /// Live flows in the table.
    pub live: u64,
    /// Number of flows that match the query.
    pub matched: u64,
    /// Number of flows that the table has room for.
    pub max_entries: u64,
    /// The first of the flows that match, as sorted.
    pub flows: Vec<Flow>,
}

/// A flow in the kernel's table.
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
    /// Number of the worker that the flow is steered to.
    pub worker: u32,
    /// Id of the peer that the flow goes to, if there is one.
    pub peer: Option<String>,
    /// Name of this peer, if it has one.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// Index of the peer's stream that the flow uses, once a packet was queued for it.
    pub stream: Option<u32>,
    /// Seconds since the flow's first packet.
    pub age_seconds: f64,
    /// Seconds since the flow's last packet.
    pub idle_seconds: f64,
    /// Packets captured; a super-packet is one.
    pub packets: u64,
    /// Bytes captured, IP headers included.
    pub bytes: u64,
}

impl Resource for FlowList {
    const PATH: &'static str = "/v1/flows";
}
