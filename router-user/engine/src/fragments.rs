//! The ports of packets in fragments: only the first fragment has them, and leaves them for the others, so that all are of
//! one flow. The kernel side does the same in a map.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use router_common::flow_hash::{HashKey, flow_hash};
use router_common::flow_key::FlowKey;
use router_common::fragment::{FragmentPorts, make_packet_key};
use router_common::packet::Parsed;

/// Packets in fragments whose ports are kept at a time.
const ENTRIES: usize = 4096;

/// Ports by fragmented packet, in fixed memory and without a lock. A packet that falls on another's place takes it.
///
/// An entry is one atomic word, so that any thread reads and writes it whole: both ports, the protocol, and 24 bits of the
/// packet's hash. Should those of another packet be equal by accident, its later fragments are taken for another flow,
/// which costs no more than their order.
#[derive(Debug)]
pub struct FragmentTable {
    hash_key: HashKey,
    entries: Box<[AtomicU64]>,
}

impl FragmentTable {
    /// Creates an empty table; `hash_key` is secret, so that nobody can choose packets that share a place.
    pub fn new(hash_key: HashKey) -> Self {
        Self {
            hash_key,
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Returns the flow key of the whole packet that a fragment is of; `None` if its first fragment was not seen, or too many
    /// others since, so that only the key without ports is known.
    pub fn flow_key(&self, parsed: &Parsed) -> Option<FlowKey> {
        let mut key = parsed.key;
        make_packet_key(&mut key, parsed.fragment_id);
        let hash = flow_hash(&self.hash_key, &key);
        let entry = self.entries.get(hash as usize % ENTRIES)?;
        // Not 0, which an entry without a packet has.
        let tag = u64::from(hash >> 8 | 1);
        if parsed.first_fragment {
            entry.store(pack(&parsed.key, tag), Relaxed);
            return Some(parsed.key);
        }
        let word = entry.load(Relaxed);
        (word >> 40 == tag).then(|| {
            let mut key = parsed.key;
            unpack(word).complete(&mut key);
            key
        })
    }
}

fn pack(key: &FlowKey, tag: u64) -> u64 {
    let [s0, s1] = key.source_port_be;
    let [d0, d1] = key.destination_port_be;
    tag << 40 | u64::from_le_bytes([s0, s1, d0, d1, key.protocol, 0, 0, 0])
}

fn unpack(word: u64) -> FragmentPorts {
    let [s0, s1, d0, d1, protocol, ..] = word.to_le_bytes();
    FragmentPorts {
        source_port_be: [s0, s1],
        destination_port_be: [d0, d1],
        protocol: protocol.into(),
        ..FragmentPorts::default()
    }
}

#[cfg(test)]
mod tests {
    use router_common::packet::protocol;

    use super::*;

    fn fragment(id: u32, is_first: bool, family: u8) -> Parsed {
        let ports = if is_first {
            [[0x12, 0x34], [0, 53]]
        } else {
            [[0; 2]; 2]
        };
        Parsed {
            key: FlowKey {
                source: [1; 16],
                destination: [2; 16],
                source_port_be: ports[0],
                destination_port_be: ports[1],
                // An IPv6 fragment may be followed by further headers, behind which the protocol stands.
                protocol: if is_first || family == 4 {
                    protocol::UDP
                } else {
                    protocol::DESTINATION_OPTIONS
                },
                family,
                padding: [0; 2],
            },
            fragment: true,
            first_fragment: is_first,
            fragment_id: id,
            ..Parsed::default()
        }
    }

    fn table() -> FragmentTable {
        FragmentTable::new(HashKey { k0: 1, k1: 2 })
    }

    #[test]
    fn every_fragment_of_a_packet_has_the_key_of_the_first() {
        for family in [4, 6] {
            let table = table();
            let first = fragment(7, true, family);

            assert_eq!(table.flow_key(&first), Some(first.key));
            for _ in 0..3 {
                assert_eq!(table.flow_key(&fragment(7, false, family)), Some(first.key));
            }
        }
    }

    #[test]
    fn a_fragment_whose_first_one_was_not_seen_has_no_key() {
        let table = table();
        table.flow_key(&fragment(7, true, 4));

        assert_eq!(table.flow_key(&fragment(8, false, 4)), None);
        assert_eq!(table.flow_key(&fragment(7, false, 6)), None);
    }

    #[test]
    fn more_packets_than_there_is_room_for_cost_the_oldest_ones_alone() {
        let table = table();
        for id in 0..10 * ENTRIES as u32 {
            let first = fragment(id, true, 4);
            table.flow_key(&first);
            assert_eq!(table.flow_key(&fragment(id, false, 4)), Some(first.key));
        }
    }
}
