//! The consumer of a worker's ring (kernel: `kernel/bpf/ringbuf.c`).
#![expect(unsafe_code, reason = "reads records in shared memory")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use aya::maps::MapData;
use tokio::io::unix::AsyncFd;

use super::bpf;
use super::mapped::Mapped;
use router_common::wake::WakeFlag;

/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT` and `BPF_RINGBUF_HDR_SZ` of the kernel's ABI.
const BUSY_BIT: u32 = 1 << 31;
const DISCARD_BIT: u32 = 1 << 30;
const HEADER_LEN: usize = 8;

/// Reads the records of one ring, in order; the only consumer of it.
pub struct RingConsumer {
    map: MapData,
    /// One page; its first word is how far we have read.
    consumer: Arc<Mapped>,
    /// One page whose first word is how far the kernel has written, then the ring. It could be mapped twice in a row, so
    /// that no record is cut; but each mapping of it counts as memory of the process.
    producer: Arc<Mapped>,
    /// A record that was cut by the end of the ring.
    joined: Vec<u8>,
    page: usize,
    capacity: usize,
    position: u64,
    bell: RingBell,
}

impl RingConsumer {
    /// Makes a ring of `bytes` for `worker`, whose sleep flag is in `wake`.
    pub(super) fn new(worker: u32, bytes: u32, wake: Arc<Mapped>) -> io::Result<Self> {
        let map = MapData::from_fd(bpf::create_ring(bytes)?).map_err(io::Error::other)?;
        let fd = map.fd().as_fd();
        let page = page_size()?;
        let capacity = bytes as usize;
        let consumer = Arc::new(Mapped::new(fd, 0, page, true)?);
        let producer = Arc::new(Mapped::new(fd, page, page + capacity, false)?);
        let bell = RingBell {
            gauge: RingGauge {
                consumer: Arc::clone(&consumer),
                producer: Arc::clone(&producer),
                capacity,
            },
            wake,
            wake_offset: worker as usize * size_of::<WakeFlag>(),
        };
        Ok(Self {
            map,
            consumer,
            producer,
            joined: Vec::new(),
            page,
            capacity,
            position: 0,
            bell,
        })
    }

    /// Returns the ring as a map, to be put into the map of rings.
    pub(super) fn map(&self) -> &MapData {
        &self.map
    }

    /// Puts the ring on the current runtime's reactor, to wait until the kernel wakes its worker.
    ///
    /// # Errors
    /// The reactor cannot take the descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the map owns the descriptor and keeps it open, and the same, for as long as `self` lives.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// Hands records to `handle` until about `budget` bytes are done or none is left; returns how many.
    ///
    /// The kernel gets the memory back at the end, once for all of them.
    pub fn drain(&mut self, budget: usize, mut handle: impl FnMut(&[u8])) -> usize {
        let written = self.written();
        let last = self.position.saturating_add(budget as u64);
        let (start, mut n_records) = (self.position, 0);
        while self.position < written && self.position < last {
            // Headers are aligned, so none is cut, and a record is shorter than the ring: both lie in the mapping, whatever
            // the header says, so neither branch that ends the loop is ever taken.
            let offset = self.position as usize & (self.capacity - 1);
            // Partner: the kernel's exchange of the header when a record is submitted.
            let header = self.producer.half_word(self.page + offset);
            let Some(header) = header.map(|word| word.load(Acquire)) else {
                break;
            };
            if header & BUSY_BIT != 0 {
                break;
            }
            let len = (header & !DISCARD_BIT) as usize;
            if header & DISCARD_BIT == 0 {
                let offset = (offset + HEADER_LEN) & (self.capacity - 1);
                let n_first = len.min(self.capacity - offset);
                // SAFETY: a submitted record is not written again until we move the consumer position past it.
                let parts = unsafe {
                    (
                        self.producer.bytes(self.page + offset, n_first),
                        self.producer.bytes(self.page, len - n_first),
                    )
                };
                let (Some(first), Some(rest)) = parts else {
                    break;
                };
                if rest.is_empty() {
                    handle(first);
                } else {
                    self.joined.clear();
                    self.joined.extend_from_slice(first);
                    self.joined.extend_from_slice(rest);
                    handle(&self.joined);
                }
                n_records += 1;
            }
            self.position += (HEADER_LEN + len).next_multiple_of(8) as u64;
        }
        if self.position != start
            && let Some(read) = self.consumer.word(0)
        {
            // Partner: the kernel's acquire when it looks for room.
            read.store(self.position, Release);
        }
        n_records
    }

    /// Announces that the worker is about to wait for the descriptor; false when there is something to read after all.
    pub fn prepare_sleep(&mut self) -> bool {
        self.bell.arm()
    }

    /// Returns what wakes the worker of this ring, for others that may make it look.
    pub fn bell(&self) -> RingBell {
        self.bell.clone()
    }

    /// Returns a gauge of this ring for observers.
    pub fn gauge(&self) -> RingGauge {
        self.bell.gauge.clone()
    }

    fn written(&self) -> u64 {
        self.producer
            .word(0)
            .map_or(self.position, |written| written.load(Acquire))
    }
}

/// The flag by which the program knows whether to wake a ring's worker.
#[derive(Clone, Debug)]
pub struct RingBell {
    gauge: RingGauge,
    wake: Arc<Mapped>,
    wake_offset: usize,
}

impl RingBell {
    /// Lets the next record wake the worker; false when there is something to read already, and none will.
    ///
    /// Partner: the program's exchange of the flag, between reserving a record and submitting it.
    pub fn arm(&self) -> bool {
        // Every worker has a flag. One without would sleep, and look at its ring when its safety timeout ends.
        let Some(flag) = self.flag() else {
            return true;
        };
        flag.store(1, SeqCst);
        fence(SeqCst);
        if self.gauge.n_bytes() == 0 {
            return true;
        }
        flag.store(0, SeqCst);
        false
    }

    /// Lets no record wake the worker; false when none would have. To be followed by [`RingBell::arm`] then.
    pub fn hold(&self) -> bool {
        self.flag().is_some_and(|flag| flag.swap(0, SeqCst) != 0)
    }

    fn flag(&self) -> Option<&AtomicU64> {
        self.wake.word(self.wake_offset)
    }
}

/// How full a ring is.
#[derive(Clone, Debug)]
pub struct RingGauge {
    consumer: Arc<Mapped>,
    producer: Arc<Mapped>,
    capacity: usize,
}

impl RingGauge {
    /// Returns the size of the ring in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity
    }

    /// Returns the share of the ring that holds records not yet released, 0 to 1.
    pub fn fill(&self) -> f64 {
        self.n_bytes() as f64 / self.capacity as f64
    }

    fn n_bytes(&self) -> u64 {
        let position = |mapped: &Mapped| mapped.word(0).map_or(0, |word| word.load(Acquire));
        // The consumer's first: it never passes the producer's.
        let read = position(&self.consumer);
        position(&self.producer).saturating_sub(read)
    }
}

impl AsFd for RingConsumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl AsRawFd for RingConsumer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn page_size() -> io::Result<usize> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    page.and_then(|page| usize::try_from(page).ok())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}
