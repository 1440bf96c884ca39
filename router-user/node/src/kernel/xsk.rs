//! AF_XDP sockets of a gateway interface: one for each receive queue and worker.
//!
//! The kernel redirects a frame only to sockets bound to the queue it came by, and a worker's flows come by every
//! queue. So each queue has a memory, a fill ring and an anchor, which is bound first and receives nothing, and each
//! worker a socket at every queue, which shares them. A frame stands in its chunk as a record does in a ring.

mod memory;
mod system;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use tokio::io::unix::AsyncFd;

use memory::{Chunk, FillRing, Memory, N_CHUNKS, ReceiveRing};
pub use system::SocketDrops;

/// Entries of a socket's receive ring: half of its queue's chunks, so that one worker cannot keep them all.
const RECEIVE_ENTRIES: u32 = N_CHUNKS / 2;

/// An anchor is not in the socket table, but a socket without rings cannot be bound.
const ANCHOR_ENTRIES: u32 = 2;

/// How often, and how far apart, a queue that is taken is tried again.
const RELEASE_TRIES: u32 = 50;
const RELEASE_INTERVAL: Duration = Duration::from_millis(20);

/// How frames get into the sockets' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// The driver writes them there.
    ZeroCopy,
    /// The kernel copies them.
    Copy,
}

impl fmt::Display for CopyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy mode",
        })
    }
}

/// The anchors of an interface.
#[derive(Debug)]
pub struct SocketPool {
    interface: u32,
    mode: CopyMode,
    queues: Vec<Queue>,
    dropped: Arc<Mutex<Dropped>>,
}

#[derive(Debug)]
struct Queue {
    fill: Arc<FillRing>,
    // Closed before the memory goes.
    anchor: OwnedFd,
    memory: Arc<Memory>,
}

/// What closed sockets dropped, and the open ones.
#[derive(Debug, Default)]
struct Dropped {
    closed: SocketDrops,
    open: Vec<std::sync::Weak<OwnedFd>>,
}

impl SocketPool {
    /// Opens a socket and closes it again.
    ///
    /// # Errors
    /// The kernel has none, or does not give it to this process.
    pub fn try_socket() -> io::Result<()> {
        system::open().map(drop)
    }

    /// Binds an anchor to each receive queue of `interface`, at most `max_queues`.
    ///
    /// Waits a moment where a queue is still being released by a process that has just ended.
    ///
    /// # Errors
    /// The kernel gives no memory or no socket, or the driver cannot do what `mode` says.
    pub fn open(interface: u32, mode: CopyMode, max_queues: u32) -> io::Result<Self> {
        if max_queues == 0 {
            return Err(io::Error::other(
                "other gateways have taken every place for a queue",
            ));
        }
        let mut queues: Vec<Queue> = Vec::new();
        for number in 0..max_queues {
            match free_anchor(interface, number, mode) {
                Ok(queue) => queues.push(queue),
                // No such queue (`xsk_reg_pool_at_qid`).
                Err(error) if number > 0 && error.raw_os_error() == Some(Errno::EINVAL as i32) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            interface,
            mode,
            queues,
            dropped: Arc::default(),
        })
    }

    /// Returns how frames get into the memory.
    pub fn mode(&self) -> CopyMode {
        self.mode
    }

    /// Returns the number of receive queues.
    pub fn n_queues(&self) -> u32 {
        self.queues.len() as u32
    }

    /// Opens a worker's sockets, one for each queue, in their order.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open_sockets(&self) -> io::Result<Vec<SocketConsumer>> {
        (0..)
            .zip(&self.queues)
            .map(|(n, queue)| self.open_socket(n, queue))
            .collect()
    }

    /// Returns what all its sockets have dropped.
    pub fn drops(&self) -> SocketDrops {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = dropped.closed;
        dropped.open.retain(|socket| socket.strong_count() > 0);
        for socket in dropped.open.iter().filter_map(std::sync::Weak::upgrade) {
            sum.add(system::drops(socket.as_fd()).unwrap_or_default());
        }
        sum
    }

    fn open_socket(&self, number: u32, queue: &Queue) -> io::Result<SocketConsumer> {
        let socket = system::open()?;
        system::make_ring(socket.as_fd(), libc::XDP_RX_RING, RECEIVE_ENTRIES)?;
        let offsets = system::ring_offsets(socket.as_fd())?;
        let ring = ReceiveRing::new(socket.as_fd(), &offsets.rx, RECEIVE_ENTRIES)?;
        system::bind(
            socket.as_fd(),
            self.interface,
            number,
            0,
            Some(queue.anchor.as_fd()),
        )?;
        let socket = Arc::new(socket);
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.open.push(Arc::downgrade(&socket));
        Ok(SocketConsumer {
            interface: self.interface,
            socket,
            ring,
            fill: queue.fill.clone(),
            done: Vec::with_capacity(RECEIVE_ENTRIES as usize),
            memory: queue.memory.clone(),
            dropped: self.dropped.clone(),
        })
    }
}

/// Reads the frames of one socket, in order; the only consumer of it.
#[derive(Debug)]
pub struct SocketConsumer {
    interface: u32,
    socket: Arc<OwnedFd>,
    ring: ReceiveRing,
    fill: Arc<FillRing>,
    done: Vec<Chunk>,
    memory: Arc<Memory>,
    dropped: Arc<Mutex<Dropped>>,
}

impl SocketConsumer {
    /// Returns the index of the interface that it was opened at.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// Puts the socket on the current runtime's reactor, to wait for frames.
    ///
    /// # Errors
    /// The reactor cannot take the descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        register(self)
    }

    /// Hands records to `handle` until about `budget` bytes are done or none is left; returns how many.
    ///
    /// The kernel gets the memory back at the end, once for all of them.
    pub fn drain(&mut self, budget: usize, mut handle: impl FnMut(&[u8])) -> usize {
        let (mut n_records, mut n_bytes) = (0, 0);
        while n_bytes < budget
            && let Some(received) = self.ring.next()
        {
            let record = self.memory.bytes(&received);
            handle(record);
            n_bytes += record.len();
            n_records += 1;
            self.done.push(received.into_chunk());
        }
        if n_records > 0 {
            self.ring.release();
            self.fill.give_back(self.done.drain(..));
        }
        n_records
    }
}

impl Drop for SocketConsumer {
    fn drop(&mut self) {
        // What is left in the ring would be lost to the queue.
        self.drain(usize::MAX, |_| {});
        if let Ok(drops) = system::drops(self.socket.as_fd()) {
            let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
            dropped.closed.add(drops);
            dropped
                .open
                .retain(|socket| socket.as_ptr() != Arc::as_ptr(&self.socket));
        }
    }
}

impl AsFd for SocketConsumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for SocketConsumer {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "the descriptor must outlive its registration")]
fn register(consumer: SocketConsumer) -> io::Result<AsyncFd<SocketConsumer>> {
    // SAFETY: the consumer owns its socket and keeps it open, and the same, for as long as it lives.
    Ok(unsafe { AsyncFd::register(consumer) }?)
}

/// Makes the anchor of a queue. A queue that is taken is tried again: the kernel lets go of it some time after its last
/// socket was closed (`xp_put_pool`).
fn free_anchor(interface: u32, number: u32, mode: CopyMode) -> io::Result<Queue> {
    let mut n_tries = 0;
    loop {
        match anchor(interface, number, mode) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && n_tries < RELEASE_TRIES => {
                n_tries += 1;
                std::thread::sleep(RELEASE_INTERVAL);
            }
            done => return done,
        }
    }
}

fn anchor(interface: u32, number: u32, mode: CopyMode) -> io::Result<Queue> {
    let memory = Memory::new()?;
    let anchor = system::open()?;
    let fd = anchor.as_fd();
    memory.register(fd)?;
    system::make_ring(fd, libc::XDP_UMEM_FILL_RING, N_CHUNKS)?;
    // These two are of no use without sending, but the kernel wants both.
    system::make_ring(fd, libc::XDP_UMEM_COMPLETION_RING, ANCHOR_ENTRIES)?;
    system::make_ring(fd, libc::XDP_RX_RING, ANCHOR_ENTRIES)?;
    let fill = FillRing::new(fd, &system::ring_offsets(fd)?.fr)?;
    let flags = match mode {
        CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
        CopyMode::Copy => libc::XDP_COPY,
    };
    system::bind(fd, interface, number, flags, None)?;
    Ok(Queue {
        fill: Arc::new(fill),
        anchor,
        memory: Arc::new(memory),
    })
}
