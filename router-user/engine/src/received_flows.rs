//! What came from peers of each flow, in fixed memory and without a lock or a wait.
//!
//! An entry is one cache line, so that a packet touches one or two. The memory is untouched, and so not resident, until
//! flows use it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use router_common::flow_hash::{HashKey, flow_hash};
use router_common::flow_key::FlowKey;

/// Number of entries in a set, any of which a flow of the set may have.
const WAYS: usize = 8;

/// Precision of an entry's times; they last for 13 years.
const TICK: Duration = Duration::from_millis(100);

/// Most attempts to find or make an entry. One fails only when another thread takes the same entry at that moment.
const MAX_TRIES: usize = 4;

/// Bits of an entry's last key word that are the key's. Those of the key's padding count who has had the entry.
const KEY_BITS: u64 = (1 << 48) - 1;
const OWNERS_STEP: u64 = 1 << 48;

/// An entry whose key is being written; no flow has such a protocol and family.
const TAKEN: u64 = KEY_BITS;

/// Packets and bytes of flows by their keys, for any number of threads.
///
/// A flow that is idle for longer than the time to live is gone. When a set is full of live flows, the one that was idle for
/// longest makes room. Should a packet of it come in that very moment, the packet counts for the flow in its place.
#[derive(Debug)]
pub struct ReceivedFlows {
    hash_key: HashKey,
    sets: Box<[EntrySet]>,
    start: Instant,
    ttl_ticks: AtomicU32,
}

/// What came of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFlow {
    /// Which entry of the table it has.
    pub place: usize,
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Time since the first packet.
    pub age: Duration,
    /// Time since the last packet.
    pub idle: Duration,
}

/// A moment in the time of a [`ReceivedFlows`]; read once per batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedTick(u32);

#[derive(Debug, Zeroable)]
#[repr(transparent)]
struct EntrySet([Entry; WAYS]);

#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
struct Entry {
    addresses: [AtomicU64; 4],
    /// Ports, protocol and family, and how often the entry has changed its owner; 0 without one.
    rest: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    first: AtomicU32,
    last: AtomicU32,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl ReceivedFlows {
    /// Creates a table for `n_flows` flows, each gone after `ttl` without a packet; `hash_key` is secret, so that nobody can
    /// choose flows that meet in one set.
    pub fn new(hash_key: HashKey, n_flows: u32, ttl: Duration, now: Instant) -> Self {
        let flows = Self {
            hash_key,
            sets: bytemuck::zeroed_slice_box(n_sets(n_flows)),
            start: now,
            ttl_ticks: AtomicU32::new(0),
        };
        flows.set_ttl(ttl);
        flows
    }

    /// Returns how many bytes a table for `n_flows` flows takes at most.
    pub fn table_bytes(n_flows: u32) -> u64 {
        (n_sets(n_flows) * size_of::<EntrySet>()) as u64
    }

    /// Sets the time without a packet after which a flow is gone. It is rounded up to ticks of the table.
    pub fn set_ttl(&self, ttl: Duration) {
        let ticks = ttl.as_nanos().div_ceil(TICK.as_nanos());
        self.ttl_ticks
            .store(u32::try_from(ticks).unwrap_or(u32::MAX), Relaxed);
    }

    /// Returns the number of entries, of which each has a place below it.
    pub fn n_places(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Returns the tick of `now`.
    pub fn tick(&self, now: Instant) -> ReceivedTick {
        let ticks = now.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        ReceivedTick(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Counts packets of a flow. Returns whether counts were lost: those of another live flow, which made room for this one, or,
    /// if other threads take all entries at this moment, these.
    pub fn count(&self, key: &FlowKey, packets: u64, bytes: u64, now: ReceivedTick) -> bool {
        let words = words(key);
        let hash = flow_hash(&self.hash_key, key);
        let Some(EntrySet(set)) = self.set(hash) else {
            return true;
        };
        let ttl_ticks = self.ttl_ticks.load(Relaxed);
        for _ in 0..MAX_TRIES {
            // The first entry that is free, or else the one idle for longest.
            let mut room: Option<(&Entry, u64, u32)> = None;
            let mut own = None;
            for way in 0..WAYS {
                // Flows begin at different entries of a set, so that most are found at the first look.
                let entry = &set[(hash as usize + way) % WAYS];
                let rest = entry.rest.load(Acquire);
                if entry.is_of(rest, &words) {
                    own = Some((entry, rest));
                    break;
                }
                let idle = match rest & KEY_BITS {
                    0 => u32::MAX,
                    TAKEN => continue,
                    _ => entry.idle(now),
                };
                if room.is_none_or(|(_, _, longest)| idle > longest) {
                    room = Some((entry, rest, idle));
                }
            }
            let taken = match (own, room) {
                (Some((entry, _)), _) if entry.idle(now) <= ttl_ticks => {
                    entry.packets.fetch_add(packets, Relaxed);
                    entry.bytes.fetch_add(bytes, Relaxed);
                    entry.last.store(now.0, Relaxed);
                    return false;
                }
                // It comes back after it was gone, and begins anew.
                (Some((entry, rest)), _) => entry.take(rest, &words, packets, bytes, now).then_some(false),
                (None, Some((entry, rest, idle))) => entry
                    .take(rest, &words, packets, bytes, now)
                    .then_some(idle <= ttl_ticks),
                (None, None) => None,
            };
            if let Some(is_lost) = taken {
                return is_lost;
            }
        }
        true
    }

    /// Returns what came of the flow, if it is live.
    pub fn get(&self, key: &FlowKey, now: ReceivedTick) -> Option<ReceivedFlow> {
        let hash = flow_hash(&self.hash_key, key);
        let set = set_index(hash, self.sets.len());
        let places = (set * WAYS)..(set * WAYS + WAYS);
        let mut found = places.filter_map(|place| self.look(place, now));
        found.find(|(other, _)| other == key).map(|(_, flow)| flow)
    }

    /// Returns every live flow.
    pub fn live(&self, now: ReceivedTick) -> impl Iterator<Item = (FlowKey, ReceivedFlow)> {
        (0..self.n_places()).filter_map(move |place| self.look(place, now))
    }

    fn look(&self, place: usize, now: ReceivedTick) -> Option<(FlowKey, ReceivedFlow)> {
        let entry = self.sets.get(place / WAYS)?.0.get(place % WAYS)?;
        let (key, seen) = entry.read()?;
        let ticks = |then: u32| TICK * now.0.saturating_sub(then);
        (now.0.saturating_sub(seen.last) <= self.ttl_ticks.load(Relaxed)).then(|| {
            let flow = ReceivedFlow {
                place,
                packets: seen.packets,
                bytes: seen.bytes,
                age: ticks(seen.first),
                idle: ticks(seen.last),
            };
            (key, flow)
        })
    }

    fn set(&self, hash: u32) -> Option<&EntrySet> {
        self.sets.get(set_index(hash, self.sets.len()))
    }
}

/// The counts of an entry.
struct Counts {
    packets: u64,
    bytes: u64,
    first: u32,
    last: u32,
}

impl Entry {
    fn is_of(&self, rest: u64, words: &[u64; 5]) -> bool {
        let [addresses @ .., last] = words;
        let same = || {
            self.addresses
                .iter()
                .zip(addresses)
                .all(|(own, word)| own.load(Relaxed) == *word)
        };
        rest & KEY_BITS == *last && same()
    }

    fn idle(&self, now: ReceivedTick) -> u32 {
        // Another thread's tick may be a little later.
        now.0.saturating_sub(self.last.load(Relaxed))
    }

    /// Gives the entry, whose last key word was `rest`, to another flow. False if another thread was first.
    fn take(&self, rest: u64, words: &[u64; 5], packets: u64, bytes: u64, now: ReceivedTick) -> bool {
        let owners = (rest & !KEY_BITS).wrapping_add(OWNERS_STEP);
        if self
            .rest
            .compare_exchange(rest, owners | TAKEN, Acquire, Relaxed)
            .is_err()
        {
            return false;
        }
        // Whoever sees what is written now sees that the entry is taken. Partner: the fence in `read`.
        fence(Release);
        let [addresses @ .., last] = words;
        for (own, word) in self.addresses.iter().zip(addresses) {
            own.store(*word, Relaxed);
        }
        self.packets.store(packets, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.first.store(now.0, Relaxed);
        self.last.store(now.0, Relaxed);
        // Partner: the first load in `read`, and the one in `count`.
        self.rest.store(owners | last, Release);
        true
    }

    /// Returns key and counts of one flow; `None` without one, or while it changes.
    fn read(&self) -> Option<(FlowKey, Counts)> {
        let rest = self.rest.load(Acquire);
        if matches!(rest & KEY_BITS, 0 | TAKEN) {
            return None;
        }
        let [a, b, c, d] = &self.addresses;
        let words = [a, b, c, d].map(|word| word.load(Relaxed));
        let counts = Counts {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            first: self.first.load(Relaxed),
            last: self.last.load(Relaxed),
        };
        // Partner: the fence in `take`.
        fence(Acquire);
        if self.rest.load(Relaxed) != rest {
            return None;
        }
        let [a, b, c, d] = words;
        let bytes = [a, b, c, d, rest & KEY_BITS].map(u64::to_le_bytes);
        Some((bytemuck::cast(bytes), counts))
    }
}

fn words(key: &FlowKey) -> [u64; 5] {
    bytemuck::cast::<FlowKey, [[u8; 8]; 5]>(*key).map(u64::from_le_bytes)
}

fn n_sets(n_flows: u32) -> usize {
    (n_flows as usize).div_ceil(WAYS).max(1)
}

fn set_index(hash: u32, n_sets: usize) -> usize {
    ((u64::from(hash) * n_sets as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;
    use router_common::flow_key::FAMILY_V4;
    use router_common::packet::protocol;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn key(number: u32) -> FlowKey {
        let [a, b, c, d] = number.to_be_bytes();
        FlowKey {
            source: [9; 16],
            destination: [a; 16],
            source_port_be: [b, c],
            destination_port_be: [d, 1],
            protocol: protocol::UDP,
            family: FAMILY_V4,
            padding: [0; 2],
        }
    }

    struct Table {
        flows: ReceivedFlows,
        start: Instant,
    }

    impl Table {
        fn new(n_flows: u32) -> Self {
            let start = Instant::now();
            let flows = ReceivedFlows::new(HashKey { k0: 1, k1: 2 }, n_flows, TTL, start);
            Self { flows, start }
        }

        fn at(&self, seconds: f64) -> ReceivedTick {
            self.flows.tick(self.start + Duration::from_secs_f64(seconds))
        }

        fn counts(&self, number: u32, seconds: f64) -> Option<(u64, u64)> {
            let found = self.flows.get(&key(number), self.at(seconds));
            found.map(|flow| (flow.packets, flow.bytes))
        }
    }

    #[test]
    fn packets_of_a_flow_add_up_and_those_of_another_do_not() {
        let table = Table::new(1000);
        assert_eq!(table.counts(7, 0.0), None);

        assert!(!table.flows.count(&key(7), 1, 100, table.at(0.0)));
        assert!(!table.flows.count(&key(7), 44, 60_000, table.at(2.0)));
        assert!(!table.flows.count(&key(8), 1, 5, table.at(2.0)));

        let flow = table.flows.get(&key(7), table.at(3.5)).unwrap();
        assert_eq!((flow.packets, flow.bytes), (45, 60_100));
        let tenths = [flow.age, flow.idle].map(|time| time.as_millis() / 100);
        assert_eq!(tenths, [35, 15]);
        assert_eq!(table.counts(8, 3.5), Some((1, 5)));
    }

    #[test]
    fn each_field_of_the_key_makes_another_flow() {
        let table = Table::new(1000);
        let base = key(7);
        let others = [
            FlowKey {
                source: [8; 16],
                ..base
            },
            FlowKey {
                destination: [8; 16],
                ..base
            },
            FlowKey {
                source_port_be: [8; 2],
                ..base
            },
            FlowKey {
                destination_port_be: [8; 2],
                ..base
            },
            FlowKey {
                protocol: protocol::TCP,
                ..base
            },
            FlowKey { family: 6, ..base },
        ];
        for (key, n) in others.iter().chain([&base]).zip(1..) {
            table.flows.count(key, n, n, table.at(0.0));
        }
        let mut seen: Vec<_> = table.flows.live(table.at(0.0)).collect();
        seen.sort_by_key(|(_, flow)| flow.packets);
        let keys: Vec<_> = seen.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [&others[..], &[base]].concat());
        for (key, flow) in seen {
            assert_eq!(table.flows.get(&key, table.at(0.0)), Some(flow));
        }
    }

    #[test]
    fn a_flow_that_was_idle_for_long_is_gone_and_begins_anew() {
        let table = Table::new(1000);
        table.flows.count(&key(7), 1, 100, table.at(0.0));
        assert_eq!(table.counts(7, 5.0), Some((1, 100)));
        assert_eq!(table.counts(7, 5.1), None);
        assert_eq!(table.flows.live(table.at(5.1)).count(), 0);

        assert!(!table.flows.count(&key(7), 2, 30, table.at(5.1)));

        assert_eq!(table.counts(7, 5.1), Some((2, 30)));
        assert_eq!(table.flows.live(table.at(5.1)).count(), 1);
    }

    #[test]
    fn a_new_time_to_live_counts_for_the_flows_there_are() {
        let table = Table::new(1000);
        table.flows.count(&key(7), 1, 100, table.at(0.0));

        table.flows.set_ttl(Duration::from_secs(30));
        assert_eq!(table.counts(7, 30.0), Some((1, 100)));
        table.flows.set_ttl(Duration::from_millis(150));
        assert_eq!(table.counts(7, 0.2), Some((1, 100)));
        assert_eq!(table.counts(7, 0.3), None);
    }

    #[test]
    fn in_a_full_table_the_flow_idle_for_longest_makes_room_and_that_is_said() {
        let table = Table::new(WAYS as u32);
        for n in 0..WAYS as u32 {
            assert!(!table.flows.count(&key(n), 1, 1, table.at(0.1 * f64::from(n))));
        }
        table.flows.count(&key(0), 1, 1, table.at(1.0));

        assert!(table.flows.count(&key(100), 1, 1, table.at(1.1)));

        assert_eq!(table.counts(1, 1.1), None);
        for n in [0, 2, 3, 4, 5, 6, 7, 100] {
            assert!(table.counts(n, 1.1).is_some(), "{n}");
        }
        // Those that are gone make room without a loss.
        for n in 200..200 + WAYS as u32 {
            assert!(!table.flows.count(&key(n), 1, 1, table.at(20.0)), "{n}");
        }
    }

    #[test]
    fn half_as_many_flows_as_it_is_made_for_stay_but_for_few() {
        const FLOWS: u32 = 100_000;
        let table = Table::new(2 * FLOWS);

        let n_lost = (0..FLOWS)
            .filter(|n| table.flows.count(&key(*n), 1, 1, table.at(0.0)))
            .count();

        let n_live = table.flows.live(table.at(0.0)).count();
        assert_eq!(n_live + n_lost, FLOWS as usize);
        assert!(n_lost < FLOWS as usize / 100, "{n_lost}");
    }

    #[test]
    fn a_table_is_as_large_as_it_says() {
        assert_eq!(ReceivedFlows::table_bytes(262_144), 16 << 20);
        for n_flows in [0, 1, 8, 9, 4096] {
            let table = Table::new(n_flows);
            assert_eq!(
                ReceivedFlows::table_bytes(n_flows),
                64 * table.flows.n_places() as u64
            );
            table.flows.count(&key(1), 1, 1, table.at(0.0));
            assert_eq!(table.counts(1, 0.0), Some((1, 1)));
        }
    }

    #[test]
    fn threads_count_every_packet_of_a_flow_that_stays() {
        let table = Table::new(1000);
        table.flows.count(&key(7), 1, 3, table.at(0.0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        assert!(!table.flows.count(&key(7), 1, 3, table.at(0.0)));
                    }
                });
            }
        });
        assert_eq!(table.counts(7, 0.0), Some((40_001, 120_003)));
    }

    #[test]
    fn a_reader_never_sees_the_key_of_one_flow_with_another_flows_parts() {
        // One set, in which many flows push each other out.
        let table = Table::new(1);
        thread::scope(|scope| {
            for first in [0, 1000] {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..200_u32 {
                        for n in first..first + 50 {
                            table.flows.count(&key(n), 1, 1, table.at(f64::from(round)));
                        }
                    }
                });
            }
            for _ in 0..2000 {
                for (found, flow) in table.flows.live(table.at(200.0)) {
                    let [a, b, c, d] = [
                        found.destination[0],
                        found.source_port_be[0],
                        found.source_port_be[1],
                        found.destination_port_be[0],
                    ];
                    assert_eq!(found, key(u32::from_be_bytes([a, b, c, d])));
                    assert!(flow.place < table.flows.n_places());
                }
            }
        });
    }

    proptest! {
        #[test]
        fn counts_as_a_map_with_idle_expiry(
            steps in prop::collection::vec((0..40_u32, 1..50_u64, 0..30_u64), 1..300),
        ) {
            let table = Table::new(4096);
            let mut tenths = 0;
            let mut model: HashMap<u32, (u64, u64)> = HashMap::new();
            for (flow, packets, pause) in steps {
                tenths += pause;
                let now = table.at(tenths as f64 / 10.0);
                let (counted, seen) = model.entry(flow).or_insert((0, tenths));
                if tenths - *seen > 50 {
                    *counted = 0;
                }
                *counted += packets;
                *seen = tenths;
                prop_assert!(!table.flows.count(&key(flow), packets, 2 * packets, now));
                let found = table.flows.get(&key(flow), now).unwrap();
                prop_assert_eq!((found.packets, found.bytes), (*counted, 2 * *counted));
            }
            let now = table.at(tenths as f64 / 10.0);
            let n_live = model.values().filter(|(_, seen)| tenths - seen <= 50).count();
            prop_assert_eq!(table.flows.live(now).count(), n_live);
        }
    }
}
