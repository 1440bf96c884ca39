//! The memory that the sockets of a receive queue share, as chunks that are either the kernel's or ours.
#![expect(unsafe_code, reason = "reads chunks in memory that the kernel writes")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};

use nix::libc;

use super::system;
use crate::kernel::mapped::Mapped;

/// A page, the largest chunk there is; the kernel keeps the first 256 bytes as headroom.
pub(super) const CHUNK_BYTES: u32 = 4096;

/// Chunks of a queue: room for 2 ms of full packets at 10 Gbit/s.
pub(super) const N_CHUNKS: u32 = 2048;

/// A chunk that is ours: the kernel does not write to it until it is given back. Not to be copied, so that it is given
/// back once.
#[derive(Debug)]
pub(super) struct Chunk(u64);

/// The chunks of a queue.
#[derive(Debug)]
pub(super) struct Memory(Mapped);

impl Memory {
    /// Allocates all chunks.
    pub(super) fn new() -> io::Result<Self> {
        Mapped::anonymous(N_CHUNKS as usize * CHUNK_BYTES as usize).map(Self)
    }

    /// Makes it the memory of `socket`. It must outlive every socket that uses it.
    pub(super) fn register(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: sockets hold the memory, and chunks are written by nobody but the kernel.
        unsafe { system::register_memory(socket, self.0.start(), self.0.len(), CHUNK_BYTES) }
    }

    /// Returns the bytes that the kernel wrote to a chunk. They lie in the memory; a place outside, which the kernel never
    /// names, would be a record of no bytes, which no worker takes.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        // SAFETY: the chunk is ours for as long as `received` is borrowed, so the kernel does not write to it.
        let bytes = unsafe { self.0.bytes(received.start as usize, received.len as usize) };
        bytes.unwrap_or(&[])
    }
}

/// A chunk with a frame in it.
#[derive(Debug)]
pub(super) struct Received {
    chunk: Chunk,
    start: u64,
    len: u32,
}

impl Received {
    /// Takes a frame from a descriptor of a receive ring, whose chunk becomes ours by it.
    pub(super) fn from_descriptor(start: u64, len: u32) -> Self {
        let chunk = Chunk(start - start % u64::from(CHUNK_BYTES));
        Self { chunk, start, len }
    }

    /// Returns the chunk, once the frame has been read.
    pub(super) fn into_chunk(self) -> Chunk {
        self.chunk
    }
}

/// The ring by which a queue's chunks go back to the kernel; has room for all of them. The holder of the lock owns it.
#[derive(Debug)]
pub(super) struct FillRing {
    ring: Mapped,
    producer: usize,
    entries: usize,
    written: Mutex<u32>,
}

impl FillRing {
    /// Maps the fill ring of `socket` and gives the kernel every chunk.
    pub(super) fn new(socket: BorrowedFd<'_>, offsets: &libc::xdp_ring_offset) -> io::Result<Self> {
        let entries = offsets.desc as usize;
        let len = entries + N_CHUNKS as usize * size_of::<u64>();
        let ring = Self {
            ring: Mapped::new(socket, libc::XDP_UMEM_PGOFF_FILL_RING as usize, len, true)?,
            producer: offsets.producer as usize,
            entries,
            written: Mutex::new(0),
        };
        ring.give_back((0..u64::from(N_CHUNKS)).map(|n| Chunk(n * u64::from(CHUNK_BYTES))));
        Ok(ring)
    }

    /// Gives chunks back to the kernel.
    pub(super) fn give_back(&self, chunks: impl IntoIterator<Item = Chunk>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for Chunk(address) in chunks {
            // There are as many entries as chunks, and each chunk is in one place: none is overwritten, and all are in the
            // mapping, as is the producer.
            let entry = (*written % N_CHUNKS) as usize * size_of::<u64>();
            if let Some(entry) = self.ring.word(self.entries + entry) {
                entry.store(address, Relaxed);
            }
            *written = written.wrapping_add(1);
        }
        if let Some(producer) = self.ring.half_word(self.producer) {
            // Partner: the kernel's acquire of the producer (`xskq_cons_read_addr_unchecked`).
            producer.store(*written, Release);
        }
    }
}

/// The ring by which a socket hands received chunks over; the only consumer of it.
#[derive(Debug)]
pub(super) struct ReceiveRing {
    ring: Mapped,
    producer: usize,
    consumer: usize,
    entries: usize,
    n_entries: u32,
    read: u32,
}

impl ReceiveRing {
    /// Maps the receive ring of `socket`, which has `n_entries`.
    pub(super) fn new(
        socket: BorrowedFd<'_>,
        offsets: &libc::xdp_ring_offset,
        n_entries: u32,
    ) -> io::Result<Self> {
        let entries = offsets.desc as usize;
        let len = entries + n_entries as usize * size_of::<libc::xdp_desc>();
        Ok(Self {
            ring: Mapped::new(socket, libc::XDP_PGOFF_RX_RING as usize, len, true)?,
            producer: offsets.producer as usize,
            consumer: offsets.consumer as usize,
            entries,
            n_entries,
            read: 0,
        })
    }

    /// Returns the next frame, if there is one.
    pub(super) fn next(&mut self) -> Option<Received> {
        // Partner: the kernel's release of the producer (`xskq_prod_submit`).
        let written = self.ring.half_word(self.producer)?.load(Acquire);
        if written == self.read {
            return None;
        }
        // The mapping holds every entry, so each of them is there to be read.
        let entry = self.entries + (self.read % self.n_entries) as usize * size_of::<libc::xdp_desc>();
        let start = self.ring.word(entry)?.load(Relaxed);
        let len = self.ring.half_word(entry + size_of::<u64>())?.load(Relaxed);
        self.read = self.read.wrapping_add(1);
        Some(Received::from_descriptor(start, len))
    }

    /// Gives the kernel the entries that were read.
    pub(super) fn release(&self) {
        // The mapping holds it, by the kernel's own offsets.
        if let Some(consumer) = self.ring.half_word(self.consumer) {
            // Partner: the kernel's acquire when it looks for room (`xskq_prod_nb_free`).
            consumer.store(self.read, Release);
        }
    }
}
