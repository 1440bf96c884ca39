//! Numbered datagrams from one host to another, and what became of them.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::Result;

use super::gate::Gate;
use super::tally::Tally;
use super::udp::{self, UdpPlan};
use crate::lab::Namespace;

const UDP_PORT: u16 = 7300;

/// Datagrams from one side to the other for as long as `during` takes.
///
/// # Errors
/// When a namespace cannot be entered, or a socket fails.
///
/// # Panics
/// When `during` does.
pub fn datagrams(
    plan: UdpPlan,
    (from, to): (&Namespace, &Namespace),
    at: IpAddr,
    during: impl FnOnce(),
) -> Result<Tally> {
    let at = SocketAddr::new(at, UDP_PORT);
    let (stop_sending, stop_receiving) = (Gate::default(), Gate::default());
    let receiver = to.enter(|| udp::receiver(at))?;
    thread::scope(|scope| {
        let received = scope.spawn(|| udp::receive(&receiver, &stop_receiving));
        let sent = scope.spawn(|| from.enter(|| udp::send(plan, at, &stop_sending)));
        let (stop_sending, stop_receiving) = (stop_sending.open_on_drop(), stop_receiving.open_on_drop());
        during();
        drop(stop_sending);
        let sent = sent.join().expect("the sender does not panic")?;
        drop(stop_receiving);
        Ok(udp::tally(
            &sent,
            received.join().expect("the receiver does not panic")?,
        ))
    })
}
