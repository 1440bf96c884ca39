//! The queue before a worker: many dispatchers put packets in, one worker takes them out, nobody waits for a lock.
//!
//! A dispatcher reserves a number and room with one compare-and-exchange, copies its packet, and then stamps the slot of
//! that number. The worker takes packets by number as far as their slots are stamped. What is reserved in order is so
//! taken in order. All memory is atomic words, so the code is safe whatever an ordering forgets; the orderings say what
//! is seen.
//!
//! The tests compile this file a second time, against a model of the memory.

use super::sync::{AtomicBool, AtomicU64, Ordering, fence, zeroed};
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// No more packets are taken in; in the head.
const CLOSED: u64 = 1 << 63;
/// Packets are numbered modulo 2^31.
const NUMBERS: u32 = (1 << 31) - 1;
const WORD_BYTES: usize = size_of::<u64>();
/// The worker gives room back after so many packets, so that dispatchers seldom have to fetch its cursor.
const RELEASE_EVERY: u32 = 32;

/// Why a packet was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many packets or bytes wait as may.
    Full,
    /// No more are taken in.
    Closed,
}

/// What stands beside a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Hash of its flow.
    pub(crate) flow_hash: u32,
    /// Index of the peer it goes to.
    pub(crate) peer: u32,
}

/// On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Alone<T>(T);

/// Bounded in packets and in bytes.
#[derive(Debug)]
pub(crate) struct PacketQueue {
    words: Box<[AtomicU64]>,
    /// By number: its stamp and the packet's length.
    slots: Box<[AtomicU64]>,
    n_most: u32,
    head: Alone<AtomicU64>,
    tail: Alone<AtomicU64>,
    sleeping: Alone<AtomicBool>,
}

/// A place between two packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    number: u32,
    word: u32,
}

impl Position {
    fn unpack(cursor: u64) -> Self {
        Self {
            number: (cursor >> 32) as u32 & NUMBERS,
            word: cursor as u32,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.word)
    }

    fn behind(self, n_words: u32) -> Self {
        Self {
            number: self.number.wrapping_add(1) & NUMBERS,
            word: self.word.wrapping_add(n_words),
        }
    }

    /// Returns how many packets and words there are from `tail` to here.
    fn since(self, tail: Self) -> (u32, u32) {
        (
            self.number.wrapping_sub(tail.number) & NUMBERS,
            self.word.wrapping_sub(tail.word),
        )
    }

    /// Returns a stamp that is never that of the packet whose slot this was before, and never 0.
    fn stamp(self) -> u64 {
        u64::from(self.number + 1) << 32
    }
}

impl PacketQueue {
    /// Makes a queue with room for `n_most` packets, at most 2^16, and `n_bytes` of them with 8 more for each, rounded
    /// up to a power of two.
    pub(crate) fn new(n_most: u32, n_bytes: usize) -> Self {
        let n_words = n_bytes.div_ceil(WORD_BYTES).next_power_of_two();
        Self {
            words: zeroed(n_words),
            slots: zeroed((n_most as usize).next_power_of_two()),
            n_most,
            head: Alone(AtomicU64::new(0)),
            tail: Alone(AtomicU64::new(0)),
            sleeping: Alone(AtomicBool::new(false)),
        }
    }

    /// Takes `packet` in. The worker may sleep: see [`PacketQueue::must_wake`].
    ///
    /// # Errors
    /// It was not taken.
    pub(crate) fn push(&self, tag: Tag, packet: &[u8]) -> Result<(), Refused> {
        let n_words = 1 + packet.len().div_ceil(WORD_BYTES) as u32;
        let at = self.reserve(n_words)?;
        let meta = u64::from(tag.flow_hash) << 32 | u64::from(tag.peer);
        let (chunks, rest) = packet.as_chunks::<WORD_BYTES>();
        let mut last = [0; WORD_BYTES];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let contents = std::iter::once(meta)
            .chain(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)))
            .chain((!rest.is_empty()).then_some(u64::from_le_bytes(last)));
        for (word, content) in self.words_at(at.word).zip(contents) {
            word.store(content, Relaxed);
        }
        if let Some(slot) = self.slot(at) {
            // Shows the words to the reader that finds the stamp in `next`.
            slot.store(at.stamp() | packet.len() as u64, Release);
        }
        Ok(())
    }

    fn reserve(&self, n_words: u32) -> Result<Position, Refused> {
        let mut head = self.head.0.load(Relaxed);
        loop {
            if head & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let at = Position::unpack(head);
            // Pairs with the store in `release`: the room is read to its end before it is written again.
            let (n_packets, n_waiting) = at.since(Position::unpack(self.tail.0.load(Acquire)));
            let fits = u64::from(n_waiting) + u64::from(n_words) <= self.words.len() as u64;
            if n_packets >= self.n_most || !fits {
                // An old head lies behind the tail, and seems full.
                match self.head.0.load(Relaxed) {
                    same if same == head => return Err(Refused::Full),
                    newer => head = newer,
                }
                continue;
            }
            match self
                .head
                .0
                .compare_exchange_weak(head, at.behind(n_words).pack(), Relaxed, Relaxed)
            {
                Ok(_) => return Ok(at),
                Err(newer) => head = newer,
            }
        }
    }

    /// Says whether the worker has to be woken for what was pushed before; to one caller only.
    pub(crate) fn must_wake(&self) -> bool {
        // With the fence in `prepare_sleep`: either the flag is seen here, or the packet there.
        fence(SeqCst);
        self.sleeping.0.load(Relaxed) && self.sleeping.0.swap(false, AcqRel)
    }

    /// Announces that the worker sleeps; false if there is something to do first. One worker at a time.
    pub(crate) fn prepare_sleep(&self) -> bool {
        // An exchange, so that it comes after what earlier wakers did, for all to see.
        self.sleeping.0.swap(true, AcqRel);
        fence(SeqCst);
        let idle = self.next(self.position()).is_none();
        if !idle {
            self.sleeping.0.swap(false, AcqRel);
        }
        idle
    }

    /// Gives `handle` at most `n_most` packets in order; `buffer` keeps a packet, behind `n_before` bytes that are left as
    /// they are. Returns how many packets. One worker at a time.
    pub(crate) fn drain(
        &self,
        n_most: u32,
        buffer: &mut Vec<u8>,
        n_before: usize,
        mut handle: impl FnMut(Tag, &mut [u8]),
    ) -> u32 {
        let mut at = self.position();
        let mut n = 0;
        while n < n_most
            && let Some(len) = self.next(at)
        {
            let n_words = len.div_ceil(WORD_BYTES);
            buffer.resize(n_before + n_words * WORD_BYTES, 0);
            let mut words = self.words_at(at.word);
            let meta = words.next().map_or(0, |word| word.load(Relaxed));
            let (chunks, _) = buffer
                .get_mut(n_before..)
                .unwrap_or_default()
                .as_chunks_mut::<WORD_BYTES>();
            for (chunk, word) in chunks.iter_mut().zip(words) {
                *chunk = word.load(Relaxed).to_le_bytes();
            }
            let tag = Tag {
                flow_hash: (meta >> 32) as u32,
                peer: meta as u32,
            };
            handle(tag, buffer.get_mut(..n_before + len).unwrap_or_default());
            at = at.behind(1 + n_words as u32);
            n += 1;
            if n.is_multiple_of(RELEASE_EVERY) {
                self.release(at);
            }
        }
        self.release(at);
        n
    }

    /// Takes no more packets in.
    pub(crate) fn close(&self) {
        self.head.0.fetch_or(CLOSED, Relaxed);
    }

    /// Takes packets in again.
    pub(crate) fn open(&self) {
        self.head.0.fetch_and(!CLOSED, Relaxed);
    }

    /// Says whether it is closed and every packet was taken out.
    pub(crate) fn has_ended(&self) -> bool {
        let head = self.head.0.load(Relaxed);
        head & CLOSED != 0 && Position::unpack(head) == self.position()
    }

    /// Returns how many packets wait.
    pub(crate) fn n_waiting(&self) -> u32 {
        let tail = self.position();
        // Never before the tail that was just read.
        Position::unpack(self.head.0.load(Acquire)).since(tail).0
    }

    /// Returns the share of the packets that may wait.
    pub(crate) fn fill(&self) -> f64 {
        f64::from(self.n_waiting()) / f64::from(self.n_most)
    }

    fn position(&self) -> Position {
        Position::unpack(self.tail.0.load(Acquire))
    }

    fn release(&self, at: Position) {
        self.tail.0.store(at.pack(), Release);
    }

    /// Returns the length of the packet at `at`, if it is there whole.
    fn next(&self, at: Position) -> Option<usize> {
        let slot = self.slot(at)?.load(Acquire);
        (slot & !u64::from(u32::MAX) == at.stamp()).then_some(slot as u32 as usize)
    }

    fn slot(&self, at: Position) -> Option<&AtomicU64> {
        self.slots.get(at.number as usize & (self.slots.len() - 1))
    }

    /// Returns the words from `start` on, around the end.
    fn words_at(&self, start: u32) -> impl Iterator<Item = &AtomicU64> {
        let start = start as usize & (self.words.len() - 1);
        let (wrapped, begin) = self.words.split_at(start);
        begin.iter().chain(wrapped)
    }
}
