//! How long nothing arrives of a flow that sends all the time.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use xtask::lab::Namespace;

const INTERVAL: Duration = Duration::from_millis(5);
const PAYLOAD_BYTES: usize = 64;
/// How long packets come before the change, and for how long they do again until all is over.
const CALM: Duration = Duration::from_secs(1);
/// Longest silence that is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends small packets from the first host to the second, changes something, and returns the longest time between two
/// that arrive.
pub(super) fn longest_silence(
    hosts: [&Namespace; 2],
    to: IpAddr,
    change: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let [from, at] = hosts;
    let receiver = at.enter(|| UdpSocket::bind((to, 0)).context("cannot receive UDP"))?;
    receiver.set_read_timeout(Some(INTERVAL))?;
    let to = receiver.local_addr()?;
    let sender = from.enter(|| UdpSocket::bind(("0.0.0.0", 0)).context("cannot send UDP"))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // A packet that the host refuses is one that does not arrive.
                let _may_be_refused = sender.send_to(&[0; PAYLOAD_BYTES], to);
                thread::sleep(INTERVAL);
            }
        });
        let silence = watch(&receiver, change);
        stop.store(true, Relaxed);
        silence
    })
}

fn watch(receiver: &UdpSocket, change: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let before = calm(receiver, Instant::now())?;
    ensure!(before < CALM, "packets do not come before the change");
    let changed = Instant::now();
    change()?;
    calm(receiver, changed)
}

/// Receives until packets have come for a while, and returns the longest time without one.
fn calm(receiver: &UdpSocket, started: Instant) -> Result<Duration> {
    let (mut last, mut longest) = (started, Duration::ZERO);
    let mut calm_since = started;
    loop {
        let has_come = receiver.recv(&mut [0; PAYLOAD_BYTES]).is_ok();
        let now = Instant::now();
        let silent = now - last;
        if silent > longest {
            longest = silent;
            calm_since = now;
        }
        if has_come {
            last = now;
            if now - calm_since >= CALM {
                return Ok(longest);
            }
        }
        if silent > LIMIT {
            bail!("nothing came for {} s", LIMIT.as_secs());
        }
    }
}
