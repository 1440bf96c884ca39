//! The thread that carries packets: workers, connections, senders and receivers on one single-threaded runtime.
//!
//! A task that hops between threads costs more than a second core brings: one current-thread runtime moves about
//! twice the bytes of a multi-threaded one through the same connection.

use std::io;
use std::thread::JoinHandle;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Above the applications whose packets it carries: with them on the same CPUs, a ping beside a bulk transfer takes 0.8
/// instead of 2.0 ms (p50), and the transfer loses 3 %.
const NICENESS: i32 = -10;

/// A running data thread; dropping it drops every task on it.
pub(super) struct DataThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DataThread {
    /// Starts a thread called `name`, in the caller's network namespace.
    ///
    /// # Errors
    /// The system gives no thread, or no epoll instance.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            raise_priority();
            runtime.block_on(stopped.cancelled());
        })?;
        Ok(Self {
            handle,
            stop,
            thread: Some(thread),
        })
    }

    /// Spawns onto the thread.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
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
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        warn!(%error, NICENESS, "cannot raise the priority of the data thread; it needs CAP_SYS_NICE");
    }
}
