//! `GET /v1/flows`

use serde::{Deserialize, Serialize};

use super::{IpProtocol, Resource};

/// Flows of packets that this node captures. What a peer sends back is a flow in the peer's own table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowList {
    /// Live flows in the table.
    pub live: u64,
    /// Those that the query matches.
    pub matched: u64,
    /// Flows the table has room for.
    pub max_entries: u64,
    /// The first of those that match, as sorted.
    pub flows: Vec<Flow>,
}

/// One flow.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Flow {
    /// Protocol behind the IP header.
    pub protocol: IpProtocol,
    /// Source address.
    pub source: std::net::IpAddr,
    /// Source port, or the identifier of a ping; 0 without.
    pub source_port: u16,
    /// Destination address.
    pub destination: std::net::IpAddr,
    /// Destination port; 0 without.
    pub destination_port: u16,
    /// The worker that has it.
    pub worker: u32,
    /// Id of the peer it goes to, if there is one.
    pub peer: Option<String>,
    /// The peer's stream it is on, by index, once a packet was queued for it.
    pub stream: Option<u32>,
    /// Seconds since its first packet.
    pub age_seconds: f64,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// Packets captured; a super-packet is one.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

impl Resource for FlowList {
    const PATH: &'static str = "/v1/flows";
}
