//! The flows of a query: the kernel's table joined with peers and streams.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::parts::{StatusParts, failed};
use crate::control::{Flow, FlowList, FlowQuery, FlowSort, IpProtocol, SourceError};
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::peer::NO_PEER;
use stream_router_engine::flow_cache::Tick;

/// Reads the whole table once, and keeps no more than twice the flows that are asked for.
pub(super) fn read(parts: &StatusParts, max_flows: u32, query: &FlowQuery) -> Result<FlowList, SourceError> {
    let peer = query
        .peer
        .as_deref()
        .map(|end| parts.find_peer(end).map(|peer| peer.index.0))
        .transpose()?;
    let reader = parts
        .kernel
        .flows
        .reader(parts.kernel.settings.flow_ttl())
        .map_err(failed)?;
    let limit = query.limit.max(1) as usize;
    let (peers, version) = (
        parts.data_path.peers.load(),
        parts.kernel.settings.peers_version(),
    );
    let (mut live, mut matched) = (0, 0);
    let mut found = Vec::new();
    let outcome = reader.read(max_flows, |key, conn, age, idle| {
        live += 1;
        let mut row = FlowRow {
            key: *key,
            conn: *conn,
            age,
            idle,
        };
        if conn.peers_version != version {
            // As the flow's next packet will find it.
            let owner = peers.routes().lookup(row.addresses().1);
            row.conn.peer = owner.map_or(NO_PEER, |peer| peer.0);
        }
        if row.matches(query, peer) {
            matched += 1;
            found.push(row);
            if found.len() == 2 * limit {
                found.select_nth_unstable_by(limit - 1, |a, b| a.order(b, query.sort));
                found.truncate(limit);
            }
        }
    });
    outcome.map_err(failed)?;
    found.sort_by(|a, b| a.order(b, query.sort));
    found.truncate(limit);
    let tick = parts.data_path.flows.tick(Instant::now());
    Ok(FlowList {
        live,
        matched,
        max_entries: max_flows.into(),
        flows: found.iter().map(|row| row.flow(parts, tick)).collect(),
    })
}

struct FlowRow {
    key: FlowKey,
    conn: FlowEntry,
    age: Duration,
    idle: Duration,
}

impl FlowRow {
    fn matches(&self, query: &FlowQuery, peer: Option<u32>) -> bool {
        let (source, destination) = self.addresses();
        let ports = [self.key.source_port_be, self.key.destination_port_be].map(u16::from_be_bytes);
        peer.is_none_or(|peer| self.conn.peer == peer)
            && query
                .address
                .is_none_or(|net| net.contains(&source) || net.contains(&destination))
            && query.port.is_none_or(|port| ports.contains(&port))
            && query
                .protocol
                .is_none_or(|protocol| protocol.0 == self.key.protocol)
    }

    /// Compares two rows: the one with the larger value comes first. The key decides between equals, so that the order
    /// is stable.
    fn order(&self, other: &Self, sort: FlowSort) -> Ordering {
        let by_sort = match sort {
            FlowSort::Bytes => other.conn.bytes.cmp(&self.conn.bytes),
            FlowSort::Packets => other.conn.packets.cmp(&self.conn.packets),
            FlowSort::Age => other.age.cmp(&self.age),
            FlowSort::Idle => other.idle.cmp(&self.idle),
        };
        by_sort.then_with(|| bytemuck::bytes_of(&self.key).cmp(bytemuck::bytes_of(&other.key)))
    }

    fn addresses(&self) -> (IpAddr, IpAddr) {
        (self.key.source_addr(), self.key.destination_addr())
    }

    fn flow(&self, parts: &StatusParts, tick: Tick) -> Flow {
        let (source, destination) = self.addresses();
        let (peer, peer_name) = parts.peer(self.conn.peer).unzip();
        let stream = parts.data_path.flows.peek(self.conn.flow_hash, tick);
        Flow {
            protocol: IpProtocol(self.key.protocol),
            source,
            source_port: u16::from_be_bytes(self.key.source_port_be),
            destination,
            destination_port: u16::from_be_bytes(self.key.destination_port_be),
            worker: self.conn.worker,
            stream: stream.filter(|_| peer.is_some()).map(|stream| stream.0.into()),
            peer,
            peer_name: peer_name.flatten(),
            age_seconds: self.age.as_secs_f64(),
            idle_seconds: self.idle.as_secs_f64(),
            packets: self.conn.packets,
            bytes: self.conn.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use router_common::flow_key::FAMILY_V4;

    use super::*;

    fn row(bytes: u64) -> FlowRow {
        let mapped = |last: u8| std::net::Ipv4Addr::new(10, 42, 0, last).to_ipv6_mapped().octets();
        FlowRow {
            key: FlowKey {
                source: mapped(1),
                destination: mapped(2),
                source_port_be: 40_000_u16.to_be_bytes(),
                destination_port_be: 443_u16.to_be_bytes(),
                protocol: 6,
                family: FAMILY_V4,
                ..FlowKey::default()
            },
            conn: FlowEntry {
                bytes,
                peer: 3,
                ..FlowEntry::default()
            },
            age: Duration::ZERO,
            idle: Duration::ZERO,
        }
    }

    #[test]
    fn every_filter_tells_flows_apart() {
        for (query, expected) in [
            ("", true),
            ("address=10.42.0.2", true),
            ("address=10.42.0.0/30", true),
            ("address=10.42.0.3", false),
            ("address=::/0", false),
            ("port=443", true),
            ("port=40000", true),
            ("port=80", false),
            ("protocol=tcp", true),
            ("protocol=udp", false),
        ] {
            let query = FlowQuery::parse(query).unwrap();
            assert_eq!(row(1).matches(&query, Some(3)), expected, "{query:?}");
            assert!(!row(1).matches(&query, Some(4)), "{query:?}");
        }
    }

    #[test]
    fn the_most_bytes_come_first() {
        let mut rows = [row(1), row(3), row(2)];
        rows.sort_by(|a, b| a.order(b, FlowSort::Bytes));
        assert_eq!(rows.map(|row| row.conn.bytes), [3, 2, 1]);
    }
}
