//! `stream-router flows`

use clap::Args;
use ipnet::IpNet;

use super::choice::one_of;
use super::request::or_dash;
use super::table::TextTable;
use super::units::{bytes, endpoint, seconds, short_name};
use crate::control::{DEFAULT_FLOWS, FlowList, FlowQuery, FlowSort, IpProtocol, parse_limit, parse_prefix};

/// Which flows are shown.
#[derive(Debug, Args)]
pub(super) struct FlowArguments {
    /// Only flows to and from the peer with this name, inner address or id, or whose id ends so
    #[arg(long, value_name = "PEER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    peer: Option<String>,
    /// Only flows from or to this address or prefix
    #[arg(long, value_name = "ADDRESS", value_parser = parse_prefix)]
    address: Option<IpNet>,
    /// Only flows from or to this port
    #[arg(long)]
    port: Option<u16>,
    /// Only flows of this protocol, by name or number
    #[arg(long)]
    protocol: Option<IpProtocol>,
    /// Order, largest first; bytes and packets are those of both directions together
    #[arg(long, value_name = "BY", default_value_t, value_parser = one_of(FlowSort::ALL, FlowSort::name))]
    sort: FlowSort,
    /// Number of flows at most, up to 10000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS, value_parser = parse_limit)]
    top: u32,
}

impl FlowArguments {
    /// Returns the query for these flows.
    pub(super) fn query(self) -> String {
        let query = FlowQuery {
            peer: self.peer,
            address: self.address,
            port: self.port,
            protocol: self.protocol,
            sort: self.sort,
            limit: self.top,
        };
        query.query()
    }
}

/// Returns a row for each flow.
pub(super) fn lines(flows: &FlowList) -> String {
    let table = TextTable::new(&flows.flows)
        .left("proto", |flow| flow.protocol)
        .left("source", |flow| endpoint(flow.source, flow.source_port))
        .left("destination", |flow| {
            endpoint(flow.destination, flow.destination_port)
        })
        .left("peer", |flow| {
            let name = flow.peer_name.as_deref();
            or_dash(flow.peer.as_deref().map(|id| short_name(name, id)))
        })
        .right("stream", |flow| or_dash(flow.stream))
        .right("worker", |flow| or_dash(flow.worker))
        .right("age", |flow| seconds(flow.age_seconds))
        .right("idle", |flow| seconds(flow.idle_seconds))
        .right("sent packets", |flow| flow.packets)
        .right("sent", |flow| bytes(flow.bytes))
        .right("received packets", |flow| flow.rx_packets)
        .right("received", |flow| bytes(flow.rx_bytes));
    format!(
        "{}\n{} shown, {} match, {} sent and {} received are live, room for {} each",
        table.text(),
        flows.flows.len(),
        flows.matched,
        flows.live,
        flows.rx_live,
        flows.max_entries
    )
}
