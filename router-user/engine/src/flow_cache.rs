//! The flow cache, which keeps the stream of each live flow, in fixed memory and without a lock or a wait.
//!
//! A set of entries is one cache line, and an entry one atomic word, so that a worker reads and writes it whole. The
//! memory is untouched, and so not resident, until flows use it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;

/// Number of entries in a set.
const WAYS: usize = 8;

/// How many entries there are for each flow that the cache is made for. Sets are chosen by hash, and some get more flows
/// than others: with twice the room, 2 % of them are full when as many flows live as the cache is made for.
const ROOM: usize = 2;

/// The initial time to live in ticks, which are the precision of an entry's age.
const TTL_TICKS: u32 = 32;

/// Number of bits in which an entry holds the tick of its last packet: a month, at the usual time to live.
const TICK_BITS: u32 = 24;

/// Most attempts to find or make the entry of a packet. An attempt fails only when another packet comes first, so many in
/// a row do not.
const MAX_TRIES: usize = 64;

/// The index of one of a peer's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamIndex(pub u8);

/// A moment in the time of a [`FlowCache`]; read once per batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Returns the number of the tick, to be kept in an atomic.
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the tick of this number.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// The streams of flows by flow hash. Two flows with one hash share an entry, and so a stream, which harms neither.
///
/// A flow stays on its stream as long as no pause is longer than the time to live. When a set is full of live flows, the
/// one that was idle for longest makes room, and is placed anew with its next packet.
#[derive(Debug)]
pub struct FlowCache {
    shards: Vec<Box<[CacheSet]>>,
    start: Instant,
    tick: Duration,
    ttl_ticks: AtomicU32,
}

#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
struct CacheSet([AtomicU64; WAYS]);

const _: () = assert!(size_of::<CacheSet>() == 64);

impl FlowCache {
    /// Creates a cache in `n_shards` parts for `n_flows` flows, each forgotten after `ttl` without a packet.
    pub fn new(n_shards: u32, n_flows: u32, ttl: Duration, now: Instant) -> Self {
        let n_shards = n_shards.max(1) as usize;
        let n_sets = (ROOM * n_flows as usize).div_ceil(WAYS * n_shards).max(1);
        Self {
            shards: (0..n_shards)
                .map(|_| bytemuck::zeroed_slice_box(n_sets))
                .collect(),
            start: now,
            tick: (ttl / TTL_TICKS).max(Duration::from_millis(1)),
            ttl_ticks: AtomicU32::new(TTL_TICKS),
        }
    }

    /// Sets the time without a packet after which a flow is forgotten. It is rounded up to ticks of the cache.
    pub fn set_ttl(&self, ttl: Duration) {
        let ticks = ttl.as_nanos().div_ceil(self.tick.as_nanos());
        let most = (1 << TICK_BITS) - 1;
        self.ttl_ticks
            .store(u32::try_from(ticks).unwrap_or(most).clamp(1, most), Relaxed);
    }

    /// Returns the time without a packet after which a flow is forgotten for certain, a little more than the time to
    /// live.
    pub fn forgets_within(&self) -> Duration {
        self.tick * (self.ttl_ticks.load(Relaxed) + TTL_TICKS / 8)
    }

    /// Returns the tick of `now`.
    pub fn tick(&self, now: Instant) -> Tick {
        let ticks = self.since_start(now).as_nanos() / self.tick.as_nanos();
        Tick(ticks as u32 & ((1 << TICK_BITS) - 1))
    }

    /// Returns the length of a tick.
    pub fn tick_len(&self) -> Duration {
        self.tick
    }

    /// Returns the age of the cache at `now`.
    pub fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// Returns the stream of a flow that has a packet now; `choose` gives a stream to a flow that has none.
    ///
    /// Threads that ask for the same flow at the same time get the same answer.
    pub fn stream(&self, flow_hash: u32, now: Tick, choose: impl Fn() -> StreamIndex) -> StreamIndex {
        let Some(set) = self.set(flow_hash) else {
            return choose();
        };
        let ttl_ticks = self.ttl_ticks.load(Relaxed);
        // Another flow, or another thread with this one, may come first; then there is something new to look at.
        for _ in 0..MAX_TRIES {
            match set.find(flow_hash, now, ttl_ticks) {
                Lookup::Hit(entry) => return entry.stream,
                Lookup::Room { way, word } => {
                    let entry = FlowEntry {
                        flow_hash,
                        stream: choose(),
                        seen: now.0,
                    };
                    if way.compare_exchange(word, entry.pack(), Relaxed, Relaxed).is_ok() {
                        return entry.stream;
                    }
                }
            }
        }
        choose()
    }

    /// Forgets that the flow has this stream; a flow that has another one by now keeps it.
    pub fn forget(&self, flow_hash: u32, stream: StreamIndex) {
        for way in self.set(flow_hash).iter().flat_map(|set| &set.0) {
            let word = way.load(Relaxed);
            if FlowEntry::unpack(word)
                .is_some_and(|entry| entry.flow_hash == flow_hash && entry.stream == stream)
            {
                // Fails only if somebody else wrote the entry meanwhile, and knew better.
                let _ = way.compare_exchange(word, 0, Relaxed, Relaxed);
            }
        }
    }

    /// Returns the number of shards.
    pub fn n_shards(&self) -> usize {
        self.shards.len()
    }

    /// Forgets the flows of a shard that have expired, and calls `live` with the stream of each other flow in it.
    pub fn clean_shard(&self, shard: usize, now: Tick, mut live: impl FnMut(StreamIndex)) {
        let ttl_ticks = self.ttl_ticks.load(Relaxed);
        for way in self
            .shards
            .get(shard)
            .into_iter()
            .flatten()
            .flat_map(|set| &set.0)
        {
            let word = way.load(Relaxed);
            match FlowEntry::unpack(word) {
                Some(entry) if entry.age(now) <= ttl_ticks => live(entry.stream),
                Some(_) => {
                    // Fails only if the flow has just come back.
                    let _ = way.compare_exchange(word, 0, Relaxed, Relaxed);
                }
                None => {}
            }
        }
    }

    /// Returns the stream of the flow, if it has one, and changes nothing.
    pub fn peek(&self, flow_hash: u32, now: Tick) -> Option<StreamIndex> {
        let ttl_ticks = self.ttl_ticks.load(Relaxed);
        let mut entries = self
            .set(flow_hash)?
            .0
            .iter()
            .filter_map(|way| FlowEntry::unpack(way.load(Relaxed)));
        let found = entries.find(|entry| entry.flow_hash == flow_hash && entry.age(now) <= ttl_ticks);
        found.map(|entry| entry.stream)
    }

    fn set(&self, flow_hash: u32) -> Option<&CacheSet> {
        // Two independent parts of the hash, each scaled to its range.
        let scaled = |part: u32, n: usize| ((u64::from(part) * n as u64) >> 32) as usize;
        let shard = self.shards.get(scaled(flow_hash, self.shards.len()))?;
        shard.get(scaled(flow_hash.wrapping_mul(0x9e37_79b9), shard.len()))
    }
}

/// What a set has for a flow.
enum Lookup<'a> {
    /// The entry of the flow.
    Hit(FlowEntry),
    /// The entry that makes room for the flow, and the word that it holds.
    Room { way: &'a AtomicU64, word: u64 },
}

impl CacheSet {
    fn find(&self, flow_hash: u32, now: Tick, ttl_ticks: u32) -> Lookup<'_> {
        let [first, ..] = &self.0;
        let (mut room, mut room_word, mut oldest) = (first, 0, None);
        for way in &self.0 {
            let word = way.load(Relaxed);
            let entry = FlowEntry::unpack(word);
            let age = entry.map_or(u32::MAX, |entry| entry.age(now));
            match entry {
                Some(entry) if entry.flow_hash == flow_hash && age <= ttl_ticks => {
                    if age > 0 {
                        // Fails only if the entry just made room for another flow, or somebody else did this.
                        let _ = way.compare_exchange(word, entry.seen(now).pack(), Relaxed, Relaxed);
                    }
                    return Lookup::Hit(entry);
                }
                _ if oldest.is_none_or(|oldest| age > oldest) => {
                    (room, room_word, oldest) = (way, word, Some(age));
                }
                _ => {}
            }
        }
        Lookup::Room {
            way: room,
            word: room_word,
        }
    }
}

#[derive(Clone, Copy)]
struct FlowEntry {
    flow_hash: u32,
    stream: StreamIndex,
    seen: u32,
}

impl FlowEntry {
    fn unpack(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            flow_hash: (word >> 32) as u32,
            // One more than the index, so that no entry is 0.
            stream: StreamIndex(((word >> TICK_BITS) as u8).wrapping_sub(1)),
            seen: word as u32 & ((1 << TICK_BITS) - 1),
        })
    }

    fn pack(self) -> u64 {
        u64::from(self.flow_hash) << 32
            | u64::from(self.stream.0.wrapping_add(1)) << TICK_BITS
            | u64::from(self.seen)
    }

    fn seen(self, now: Tick) -> Self {
        Self { seen: now.0, ..self }
    }

    fn age(self, now: Tick) -> u32 {
        now.0.wrapping_sub(self.seen) & ((1 << TICK_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn fixed(stream: u8) -> impl Fn() -> StreamIndex {
        move || StreamIndex(stream)
    }

    #[test]
    fn live_flow_keeps_its_stream_and_an_idle_one_is_placed_anew() {
        let start = Instant::now();
        let cache = FlowCache::new(16, 1000, TTL, start);
        let at = |seconds: f64| cache.tick(start + Duration::from_secs_f64(seconds));

        assert_eq!(cache.peek(7, at(0.0)), None);
        assert_eq!(cache.stream(7, at(0.0), fixed(3)), StreamIndex(3));
        assert_eq!(cache.peek(7, at(4.9)), Some(StreamIndex(3)));
        assert_eq!(cache.stream(7, at(4.9), fixed(4)), StreamIndex(3));
        assert_eq!(cache.stream(7, at(9.8), fixed(5)), StreamIndex(3));
        assert_eq!(cache.peek(7, at(15.1)), None);
        assert_eq!(cache.stream(7, at(15.1), fixed(6)), StreamIndex(6));
    }

    #[test]
    fn a_new_time_to_live_counts_for_the_flows_there_are() {
        let start = Instant::now();
        let cache = FlowCache::new(16, 1000, TTL, start);
        let at = |seconds: f64| cache.tick(start + Duration::from_secs_f64(seconds));
        cache.stream(7, at(0.0), fixed(3));

        cache.set_ttl(Duration::from_secs(30));
        assert_eq!(cache.stream(7, at(29.9), fixed(4)), StreamIndex(3));
        assert!(cache.forgets_within() > Duration::from_secs(30));

        cache.set_ttl(Duration::from_millis(100));
        assert_eq!(cache.peek(7, at(30.0)), Some(StreamIndex(3)));
        assert_eq!(cache.peek(7, at(30.5)), None);
        assert!(cache.forgets_within() < Duration::from_secs(1));
    }

    #[test]
    fn flow_of_hash_0_on_stream_0_in_the_first_tick_is_remembered() {
        let start = Instant::now();
        let cache = FlowCache::new(1, 10, TTL, start);

        cache.stream(0, cache.tick(start), fixed(0));

        assert_eq!(cache.stream(0, cache.tick(start), fixed(1)), StreamIndex(0));
    }

    #[test]
    fn in_a_full_set_the_flow_that_was_idle_for_longest_makes_room() {
        let start = Instant::now();
        let cache = FlowCache::new(1, 4, TTL, start);
        let at = |tenths: u64| cache.tick(start + Duration::from_millis(200 * tenths));
        for flow in 0..WAYS as u32 {
            cache.stream(flow, at(u64::from(flow)), fixed(1));
        }

        cache.stream(100, at(10), fixed(1));

        let forgotten: Vec<_> = (1..WAYS as u32)
            .chain([100, 0])
            .filter(|flow| cache.stream(*flow, at(11), fixed(2)) == StreamIndex(2))
            .collect();
        assert_eq!(forgotten, [0]);
    }

    #[test]
    fn as_many_flows_as_it_is_made_for_stay_but_for_few() {
        const FLOWS: u32 = 100_000;
        let start = Instant::now();
        let cache = FlowCache::new(16, FLOWS, TTL, start);
        let flows = || (0..FLOWS).map(|n| n.wrapping_mul(0x85eb_ca6b).rotate_left(13));
        flows().for_each(|flow| {
            cache.stream(flow, cache.tick(start), fixed(1));
        });

        let n_kept = flows()
            .filter(|flow| cache.stream(*flow, cache.tick(start), fixed(2)) == StreamIndex(1))
            .count();

        assert!(n_kept >= FLOWS as usize * 97 / 100, "{n_kept}");
    }

    #[test]
    fn flows_of_two_threads_keep_their_streams() {
        let start = Instant::now();
        let cache = FlowCache::new(16, 10_000, TTL, start);
        thread::scope(|scope| {
            for thread in 0..2_u32 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..200_u8 {
                        let now = cache.tick(start + Duration::from_secs(1) * round.into());
                        for flow in 0..200 {
                            let stream = cache.stream(flow * 0x0100_0001 + thread, now, fixed(round));
                            assert_eq!(stream, StreamIndex(0));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn threads_that_ask_for_one_new_flow_at_a_time_get_one_answer() {
        let start = Instant::now();
        // One set, so that the flows fight for its entries.
        let cache = FlowCache::new(1, 1, TTL, start);
        for round in 0..500_u32 {
            let barrier = std::sync::Barrier::new(3);
            let now = cache.tick(start + TTL * 2 * round);
            let answers: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..3_u8)
                    .map(|thread| {
                        let (cache, barrier) = (&cache, &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            (
                                cache.stream(7, now, fixed(thread)),
                                cache.stream(7, now, fixed(9)),
                            )
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (first, _) = answers[0];
            assert!(answers.iter().all(|both| *both == (first, first)), "{answers:?}");
        }
    }

    #[test]
    fn a_step_for_each_shard_shows_the_live_flows_and_forgets_the_expired_ones() {
        let start = Instant::now();
        let cache = FlowCache::new(4, 4096, TTL, start);
        let at = |seconds: u64| cache.tick(start + Duration::from_secs(seconds));
        for flow in 0..100_u32 {
            cache.stream(flow.wrapping_mul(0x9e37_79b9), at(0), fixed(1));
            cache.stream(flow.wrapping_mul(0x85eb_ca6b), at(4), fixed(2));
        }
        let live = |seconds| {
            let mut n = [0; 3];
            for shard in 0..cache.n_shards() {
                cache.clean_shard(shard, at(seconds), |stream| n[usize::from(stream.0)] += 1);
            }
            n
        };

        // The flow of hash 0 is of both.
        assert_eq!(live(5), [0, 100, 99]);
        assert_eq!(live(6), [0, 1, 99]);
        assert_eq!(live(5), [0, 1, 99]);
    }

    #[test]
    fn a_flow_is_forgotten_only_with_the_stream_it_has() {
        let start = Instant::now();
        let cache = FlowCache::new(4, 4096, TTL, start);
        let now = cache.tick(start);
        cache.stream(7, now, fixed(1));

        cache.forget(7, StreamIndex(2));
        assert_eq!(cache.stream(7, now, fixed(3)), StreamIndex(1));
        cache.forget(7, StreamIndex(1));
        assert_eq!(cache.stream(7, now, fixed(3)), StreamIndex(3));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_with_idle_expiry(
            steps in prop::collection::vec((0..40_u32, 0..8_u8, 0..3000_u64), 1..300),
        ) {
            let start = Instant::now();
            let cache = FlowCache::new(4, 4096, TTL, start);
            let mut now = start;
            let mut model: HashMap<u32, (u8, Instant)> = HashMap::new();
            for (flow, stream, pause_ms) in steps {
                now += Duration::from_millis(pause_ms);
                // Spread as a hash would be.
                let flow = flow.wrapping_mul(0x9e37_79b9);
                let found = cache.stream(flow, cache.tick(now), fixed(stream)).0;
                let tick = TTL / TTL_TICKS;
                match model.get(&flow) {
                    Some((expected, seen)) if now - *seen <= TTL => prop_assert_eq!(found, *expected),
                    Some((expected, seen)) if now - *seen <= TTL + tick => {
                        prop_assert!(found == *expected || found == stream);
                    }
                    _ => prop_assert_eq!(found, stream),
                }
                model.insert(flow, (found, now));
            }
        }
    }
}
