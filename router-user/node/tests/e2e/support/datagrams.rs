//! Numbered datagrams from one host to another, and what became of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use xtask::lab::Namespace;

use super::udp::{self, UdpPlan};
use crate::support::tally::Tally;

const UDP_PORT: u16 = 7300;
/// What of a receiver's end is still on its way when the senders have stopped.
const TAIL: Duration = Duration::from_millis(500);

/// Datagrams from one side to the other for as long as `during` takes.
pub(crate) fn datagrams(
    plan: UdpPlan,
    (from, to): (&Namespace, &Namespace),
    at: IpAddr,
    during: impl FnOnce(),
) -> Result<Tally> {
    let at = SocketAddr::new(at, UDP_PORT);
    let (stop_sending, stop_receiving) = (AtomicBool::new(false), AtomicBool::new(false));
    let receiver = to.enter(|| udp::receiver(at))?;
    thread::scope(|scope| {
        let received = scope.spawn(|| udp::receive(&receiver, &stop_receiving));
        let sent = scope.spawn(|| from.enter(|| udp::send(plan, at, &stop_sending)));
        let (stop_sending, stop_receiving) = (SetOnDrop(&stop_sending), SetOnDrop(&stop_receiving));
        during();
        drop(stop_sending);
        let sent = sent.join().expect("the sender does not panic")?;
        thread::sleep(TAIL);
        drop(stop_receiving);
        Ok(udp::tally(
            &sent,
            received.join().expect("the receiver does not panic")?,
        ))
    })
}

/// Sets a flag when it goes out of scope, also by a panic, so that nobody waits for it for ever.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
