//! The flows of a query: the kernel's table joined with what came from peers, peers and streams.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::parts::{StatusParts, failed};
use crate::control::{Flow, FlowList, FlowQuery, FlowSort, IpProtocol, SourceError};
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::packet::reversed;
use router_common::peer::NO_PEER;
use stream_router_engine::flow_cache::Tick;
use stream_router_engine::received_flows::ReceivedFlow;

/// Reads both tables once, and keeps no more than twice the flows that are asked for.
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
    let (peers, version) = (
        parts.data_path.peers.load(),
        parts.kernel.settings.peers_version(),
    );
    let owner = |address| peers.routes().lookup(address).map_or(NO_PEER, |peer| peer.0);
    let (received, now) = (&parts.data_path.received, Instant::now());
    let received_now = received.tick(now);
    // Flows of peers that this node sends packets of too.
    let mut joined = vec![false; received.n_places()];
    let mut found = FoundFlows::new(query, peer);
    let mut live = 0;
    let outcome = reader.read(max_flows, |key, conn, age, idle| {
        live += 1;
        let received = received.get(&reversed(key), received_now);
        if let Some(joined) = received.and_then(|flow| joined.get_mut(flow.place)) {
            *joined = true;
        }
        let peer = if conn.peers_version == version {
            conn.peer
        } else {
            // As the flow's next packet will find it.
            owner(key.destination_addr())
        };
        found.push(FlowRow {
            key: *key,
            peer,
            sent: Some(SentFlow {
                entry: *conn,
                age,
                idle,
            }),
            received,
        });
    });
    outcome.map_err(failed)?;
    let mut rx_live = 0;
    for (key, flow) in received.live(received_now) {
        rx_live += 1;
        if joined.get(flow.place).is_some_and(|joined| !joined) {
            found.push(FlowRow {
                key: reversed(&key),
                peer: owner(key.source_addr()),
                sent: None,
                received: Some(flow),
            });
        }
    }
    let matched = found.n_matched;
    let tick = parts.data_path.flows.tick(now);
    Ok(FlowList {
        live,
        rx_live,
        matched,
        max_entries: max_flows.into(),
        flows: found.sorted().iter().map(|row| row.flow(parts, tick)).collect(),
    })
}

/// The first of the flows that match.
struct FoundFlows<'a> {
    query: &'a FlowQuery,
    peer: Option<u32>,
    n_matched: u64,
    rows: Vec<FlowRow>,
}

impl<'a> FoundFlows<'a> {
    fn new(query: &'a FlowQuery, peer: Option<u32>) -> Self {
        Self {
            query,
            peer,
            n_matched: 0,
            rows: Vec::new(),
        }
    }

    fn limit(&self) -> usize {
        self.query.limit.max(1) as usize
    }

    fn push(&mut self, row: FlowRow) {
        if !row.matches(self.query, self.peer) {
            return;
        }
        self.n_matched += 1;
        self.rows.push(row);
        let limit = self.limit();
        if self.rows.len() == 2 * limit {
            let sort = self.query.sort;
            self.rows
                .select_nth_unstable_by(limit - 1, |a, b| a.order(b, sort));
            self.rows.truncate(limit);
        }
    }

    fn sorted(mut self) -> Vec<FlowRow> {
        let sort = self.query.sort;
        self.rows.sort_by(|a, b| a.order(b, sort));
        self.rows.truncate(self.limit());
        self.rows
    }
}

/// A flow as this node sends it, or would.
struct FlowRow {
    key: FlowKey,
    peer: u32,
    /// What the kernel captured of it.
    sent: Option<SentFlow>,
    /// What a peer sent in the other direction.
    received: Option<ReceivedFlow>,
}

struct SentFlow {
    entry: FlowEntry,
    age: Duration,
    idle: Duration,
}

impl FlowRow {
    fn matches(&self, query: &FlowQuery, peer: Option<u32>) -> bool {
        let (source, destination) = self.addresses();
        let ports = [self.key.source_port_be, self.key.destination_port_be].map(u16::from_be_bytes);
        peer.is_none_or(|peer| self.peer == peer)
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
            FlowSort::Bytes => other.all(Self::bytes).cmp(&self.all(Self::bytes)),
            FlowSort::Packets => other.all(Self::packets).cmp(&self.all(Self::packets)),
            FlowSort::Tx => other.bytes().0.cmp(&self.bytes().0),
            FlowSort::Rx => other.bytes().1.cmp(&self.bytes().1),
            FlowSort::Age => other.age().cmp(&self.age()),
            FlowSort::Idle => other.idle().cmp(&self.idle()),
        };
        by_sort.then_with(|| bytemuck::bytes_of(&self.key).cmp(bytemuck::bytes_of(&other.key)))
    }

    fn addresses(&self) -> (IpAddr, IpAddr) {
        (self.key.source_addr(), self.key.destination_addr())
    }

    /// Packets sent and received.
    fn packets(&self) -> (u64, u64) {
        (
            self.sent.as_ref().map_or(0, |sent| sent.entry.packets),
            self.received.map_or(0, |received| received.packets),
        )
    }

    /// Bytes sent and received.
    fn bytes(&self) -> (u64, u64) {
        (
            self.sent.as_ref().map_or(0, |sent| sent.entry.bytes),
            self.received.map_or(0, |received| received.bytes),
        )
    }

    fn all(&self, of: fn(&Self) -> (u64, u64)) -> u64 {
        let (sent, received) = of(self);
        sent.saturating_add(received)
    }

    fn age(&self) -> Duration {
        let sent = self.sent.as_ref().map(|sent| sent.age);
        let received = self.received.map(|received| received.age);
        sent.into_iter().chain(received).max().unwrap_or_default()
    }

    fn idle(&self) -> Duration {
        let sent = self.sent.as_ref().map(|sent| sent.idle);
        let received = self.received.map(|received| received.idle);
        sent.into_iter().chain(received).min().unwrap_or_default()
    }

    fn flow(&self, parts: &StatusParts, tick: Tick) -> Flow {
        let (source, destination) = self.addresses();
        let (peer, peer_name) = parts.peer(self.peer).unzip();
        let entry = self.sent.as_ref().map(|sent| &sent.entry);
        let stream = entry.and_then(|entry| parts.data_path.flows.peek(entry.flow_hash, tick));
        let ((packets, rx_packets), (bytes, rx_bytes)) = (self.packets(), self.bytes());
        Flow {
            protocol: IpProtocol(self.key.protocol),
            source,
            source_port: u16::from_be_bytes(self.key.source_port_be),
            destination,
            destination_port: u16::from_be_bytes(self.key.destination_port_be),
            worker: entry.map(|entry| entry.worker),
            stream: stream.filter(|_| peer.is_some()).map(|stream| stream.0.into()),
            peer,
            peer_name: peer_name.flatten(),
            age_seconds: self.age().as_secs_f64(),
            idle_seconds: self.idle().as_secs_f64(),
            packets,
            bytes,
            rx_packets,
            rx_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use router_common::flow_key::FAMILY_V4;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A flow to peer 3 that has sent and received so many bytes, a packet for each.
    fn row(sent: Option<u64>, received: Option<u64>) -> FlowRow {
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
            peer: 3,
            sent: sent.map(|bytes| SentFlow {
                entry: FlowEntry {
                    bytes,
                    packets: bytes,
                    ..FlowEntry::default()
                },
                age: 9 * SECOND,
                idle: 2 * SECOND,
            }),
            received: received.map(|bytes| ReceivedFlow {
                place: 0,
                packets: bytes,
                bytes,
                age: 8 * SECOND,
                idle: SECOND,
            }),
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
            let row = row(Some(1), None);
            assert_eq!(row.matches(&query, Some(3)), expected, "{query:?}");
            assert!(!row.matches(&query, Some(4)), "{query:?}");
        }
    }

    #[test]
    fn the_most_of_what_is_asked_for_comes_first() {
        for (sort, expected) in [
            ("bytes", [(0, 9), (3, 5), (4, 0)]),
            ("packets", [(0, 9), (3, 5), (4, 0)]),
            ("tx", [(4, 0), (3, 5), (0, 9)]),
            ("rx", [(0, 9), (3, 5), (4, 0)]),
        ] {
            let query = FlowQuery::parse(&format!("sort={sort}&limit=3")).unwrap();
            let mut found = FoundFlows::new(&query, None);
            for (sent, received) in [(Some(4), None), (Some(3), Some(5)), (None, Some(9))] {
                found.push(row(sent, received));
            }
            assert_eq!(found.n_matched, 3);
            let sorted = found.sorted();
            assert_eq!(
                sorted.iter().map(FlowRow::bytes).collect::<Vec<_>>(),
                expected,
                "{sort}"
            );
        }
    }

    #[test]
    fn no_more_than_the_limit_is_kept_and_all_are_counted() {
        let query = FlowQuery::parse("limit=2").unwrap();
        let mut found = FoundFlows::new(&query, None);
        for bytes in [5, 1, 4, 3, 2, 9] {
            found.push(row(None, Some(bytes)));
            assert!(found.rows.len() < 4);
        }
        assert_eq!(found.n_matched, 6);
        let sorted = found.sorted();
        assert_eq!(
            sorted.iter().map(FlowRow::bytes).collect::<Vec<_>>(),
            [(0, 9), (0, 5)]
        );
    }

    #[test]
    fn the_first_and_the_last_packet_are_those_of_either_direction() {
        let times = |sent, received| {
            let row = row(sent, received);
            [row.age(), row.idle()].map(|time| time.as_secs())
        };
        assert_eq!(times(Some(1), Some(1)), [9, 1]);
        assert_eq!(times(Some(1), None), [9, 2]);
        assert_eq!(times(None, Some(1)), [8, 1]);
    }
}
