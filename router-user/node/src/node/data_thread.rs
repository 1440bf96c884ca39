//! The threads that carry packets: workers, connections, senders and receivers, each on one single-threaded runtime.
//!
//! A task that hops between threads costs more than a second core brings: one current-thread runtime moves about
//! twice the bytes of a multi-threaded one through the same connection. So tasks are placed and stay.

use std::io;
use std::thread::{JoinHandle, available_parallelism};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::{Span, warn};

use super::niceness::set_niceness;

/// Niceness of a data thread, above the applications whose packets it carries: with them on the same CPUs, a ping
/// beside a bulk transfer takes 0.8 instead of 2.0 ms (p50), and the transfer loses 3 %.
const NICENESS: i32 = -10;

/// Data threads, at least one.
pub(super) struct DataThreads {
    first: DataThread,
    others: Vec<DataThread>,
}

impl DataThreads {
    /// Starts `n` threads, in the caller's span and network namespace, but no more than there are CPUs.
    ///
    /// # Errors
    /// The system gives no thread, or no epoll instance.
    pub(super) fn start(n: u32) -> io::Result<Self> {
        let n_cpus = available_parallelism()?.get() as u32;
        let thread = |i| DataThread::start(&thread_name(i));
        Ok(Self {
            first: thread(0)?,
            others: (1..n.min(n_cpus)).map(thread).collect::<io::Result<_>>()?,
        })
    }

    /// Returns how many data threads there are.
    pub(super) fn n(&self) -> u32 {
        1 + self.others.len() as u32
    }

    /// Returns the runtime of the first thread, which also runs the tasks of which there is one.
    pub(super) fn first(&self) -> &Handle {
        &self.first.handle
    }

    /// Returns the runtimes of all threads, the first one's first.
    pub(super) fn runtimes(&self) -> Runtimes {
        let others = self.others.iter().map(|thread| thread.handle.clone());
        Runtimes(std::iter::once(self.first.handle.clone()).chain(others).collect())
    }
}

/// The runtimes that tasks may be placed on.
#[derive(Clone, Debug)]
pub(super) struct Runtimes(Vec<Handle>);

impl Runtimes {
    /// Returns the runtime of the task with this number, the same one each time.
    pub(super) fn of(&self, number: u32) -> &Handle {
        &self.0[number as usize % self.0.len()]
    }

    /// Returns a runtime that `taken` names as seldom as any; the search begins at that of `number`.
    pub(super) fn least_taken(&self, number: u32, taken: &[Handle]) -> &Handle {
        let n_taken = |place: &&Handle| taken.iter().filter(|other| other.id() == place.id()).count();
        let places = (0..self.0.len() as u32).map(|i| self.of(number.wrapping_add(i)));
        places.min_by_key(n_taken).unwrap_or_else(|| self.of(number))
    }

    /// Returns the names of the threads, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.0.len() as u32).map(thread_name)
    }

    /// Returns the threads, in order, with their names.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, Handle)> {
        self.names().zip(self.0.iter().cloned())
    }

    /// Returns the name of the thread that [`Runtimes::of`] is on.
    pub(super) fn name_of(&self, number: u32) -> String {
        thread_name(number % self.0.len() as u32)
    }
}

fn thread_name(index: u32) -> String {
    format!("sr-data-{index}")
}

/// A running data thread; dropping it drops every task on it.
struct DataThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DataThread {
    /// Starts a thread called `name`, in the caller's span and network namespace.
    ///
    /// # Errors
    /// The system gives no thread, or no epoll instance.
    fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let span = Span::current();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _span = span.entered();
            raise_priority();
            runtime.block_on(stopped.cancelled());
        })?;
        Ok(Self {
            handle,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for DataThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic on it has been printed already.
            let _ = thread.join();
        }
    }
}

fn raise_priority() {
    if let Err(error) = set_niceness(NICENESS) {
        warn!(%error, NICENESS, "cannot raise the priority of the data thread; it needs CAP_SYS_NICE or LimitNICE=-10");
    }
}
