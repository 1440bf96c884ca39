//! The tasks of accepted QUIC connections, which end soon after their connections.
//!
//! quinn lets them live on for three times the PTO, or for the idle time if the first datagram ended the connection, and with
//! them all that the connection holds. Whoever can send datagrams could so fill the memory.

use std::{
    future::Future,
    io,
    net::UdpSocket,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::{runtime::Handle, sync::Semaphore, task::AbortHandle, time::sleep};

/// How long a connection that has ended still answers datagrams, so that the peer hears of the end if a datagram is lost.
/// Later ones are answered with a stateless reset.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Connections of a listener that were up, have ended, and linger.
const MAX_LINGERING: usize = 64;

/// How long further ones live on, so that the end is sent at all: a listener that stops ends all of its connections at once.
const FAREWELL: Duration = Duration::from_millis(30);

/// The tasks that the endpoint of a listener has begun.
#[derive(Debug)]
pub(super) struct Drivers {
    last: Mutex<Option<AbortHandle>>,
    room: Arc<Semaphore>,
}

/// The task of a connection, which is ended with all that it holds when this is dropped.
#[derive(Debug)]
pub(super) struct Driver {
    task: AbortHandle,
    room: Arc<Semaphore>,
}

impl Drivers {
    pub(super) fn new() -> Self {
        Self {
            last: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_LINGERING)),
        }
    }

    /// Takes the task that was begun last, which is that of the connection that was accepted last.
    pub(super) fn take_last(&self) -> Option<Driver> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Driver {
            task: last.take()?,
            room: Arc::clone(&self.room),
        })
    }
}

impl Runtime for Drivers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let task = tokio::spawn(future).abort_handle();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

impl Driver {
    /// Ends the task after a while, which is short if many linger.
    pub(super) fn linger(self) {
        // Without a runtime nothing is sent any more.
        if let Ok(runtime) = Handle::try_current() {
            let place = Arc::clone(&self.room).try_acquire_owned().ok();
            let time = place.as_ref().map_or(FAREWELL, |_| LINGER);
            runtime.spawn(async move {
                sleep(time).await;
                drop((self, place));
            });
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
