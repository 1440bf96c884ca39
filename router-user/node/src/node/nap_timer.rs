//! Pauses much shorter than the runtime's timers can make, for workers whose packets come fast.
#![expect(unsafe_code, reason = "registers a descriptor with the reactor")]

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;

use stream_router_engine::wakeup_suppression::WakeupSuppression;

/// Naps end at multiples of this time, so that the workers of a thread wake it together. Long enough to gather some
/// packets, short enough that nobody notices.
const GRID_NS: i64 = 50_000;

/// Shortest nap.
const LEAST_NS: i64 = 20_000;

/// Naps in a row without a packet, after which the worker sleeps.
const MAX_IDLE: u32 = 3;

thread_local! {
    /// Counts the packets of all workers of this thread together, because it is the thread that is woken.
    static SUPPRESSION: RefCell<WakeupSuppression> = RefCell::new(WakeupSuppression::new(Instant::now()));
}

/// A timer for the naps of one worker.
pub(super) struct NapTimer {
    timer: AsyncFd<Timer>,
    n_idle: u32,
}

/// A timer that the reactor can be told of.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl NapTimer {
    /// Makes a timer on the current runtime's reactor.
    ///
    /// # Errors
    /// The system gives no timer.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(timerfd::ClockId::CLOCK_MONOTONIC, flags)?);
        Ok(Self {
            // SAFETY: the timer owns the descriptor and keeps it open, and the same, for as long as `self` lives.
            timer: unsafe { AsyncFd::register(timer) }?,
            n_idle: MAX_IDLE,
        })
    }

    /// Notes how much the worker took in a turn.
    pub(super) fn handle_taken(&mut self, n_packets: usize, n_bytes: usize) {
        self.n_idle = 0;
        SUPPRESSION.with_borrow_mut(|suppression| suppression.handle_taken(n_packets, n_bytes));
    }

    /// Naps if that is better than to sleep, when there was nothing to take at `now`; returns whether it napped.
    ///
    /// # Errors
    /// The timer cannot be set or waited for.
    pub(super) async fn nap(&mut self, now: Instant) -> io::Result<bool> {
        if self.n_idle == MAX_IDLE || !SUPPRESSION.with_borrow_mut(|suppression| suppression.poll_nap(now)) {
            return Ok(false);
        }
        self.n_idle += 1;
        // What is left of an earlier nap goes with it: nobody reads the timer, and the reactor tells of the next end only.
        let end = next_end(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let timer = &self.timer.get_ref().0;
        timer.set(Expiration::OneShot(end), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.timer.readable().await?.clear_ready();
        Ok(true)
    }
}

/// Returns the end of a nap that begins at `now`.
fn next_end(now: TimeSpec) -> TimeSpec {
    let end_ns = (now.tv_nsec() + LEAST_NS).div_euclid(GRID_NS) * GRID_NS + GRID_NS;
    TimeSpec::new(now.tv_sec() + end_ns / 1_000_000_000, end_ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns the length of the nap that begins `tv_nsec` after a full second, and whether it ends at a multiple of the
    /// grid.
    fn nap_at(tv_nsec: i64) -> (i64, bool) {
        let end = next_end(TimeSpec::new(7, tv_nsec));
        assert!((0..1_000_000_000).contains(&end.tv_nsec()), "{end:?}");
        let length_ns = (end.tv_sec() - 7) * 1_000_000_000 + end.tv_nsec() - tv_nsec;
        (length_ns, end.tv_nsec() % GRID_NS == 0)
    }

    #[test]
    fn a_nap_ends_at_the_first_multiple_of_the_grid_that_is_not_too_near() {
        assert_eq!(nap_at(0), (50_000, true));
        assert_eq!(nap_at(29_999), (20_001, true));
        assert_eq!(nap_at(30_000), (70_000, true));
        assert_eq!(nap_at(49_999), (50_001, true));
        assert_eq!(nap_at(999_960_000), (40_000, true));
        assert_eq!(nap_at(999_990_000), (60_000, true));
    }

    #[tokio::test]
    async fn a_worker_sleeps_after_some_naps_without_a_packet() {
        let mut timer = NapTimer::new().unwrap();
        let later = Instant::now() + Duration::from_millis(1);
        assert!(!timer.nap(later).await.unwrap(), "nothing was taken yet");

        timer.handle_taken(1000, 64_000);
        let later = later + Duration::from_millis(1);
        for n in 0..MAX_IDLE {
            assert!(timer.nap(later).await.unwrap(), "nap {n}");
        }
        assert!(!timer.nap(later).await.unwrap());

        timer.handle_taken(1, 64);
        assert!(timer.nap(later).await.unwrap());
    }
}
