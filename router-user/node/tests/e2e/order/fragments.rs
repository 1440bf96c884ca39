//! Datagrams of one socket that fit a packet, and others that go in fragments, by turns.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use xtask::lab::Namespace;
use xtask::lab::probe::Gate;
use xtask::lab::probe::SequenceCheck;

const PORT: u16 = 7500;
const LENGTHS: [usize; 2] = [5000, 60];
const BUFFER: usize = 64 * 1024 * 1024;
/// How long nothing has to come before the rest counts as lost.
const QUIET: Duration = Duration::from_secs(1);
const PER_BURST: u32 = 8;
const BURST_INTERVAL: Duration = Duration::from_millis(2);

/// Sends `n` datagrams from one host to the other; returns what the other saw of them.
pub(super) fn exchange((from, to): (&Namespace, &Namespace), at: IpAddr, n: u32) -> Result<SequenceCheck> {
    let at = SocketAddr::new(at, PORT);
    let receiver = to.enter(|| {
        let socket = UdpSocket::bind(at).context("cannot open the receiver")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        socket.set_read_timeout(Some(QUIET))?;
        Ok(socket)
    })?;
    let stopped = Gate::default();
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(&receiver, &stopped));
        let stopped = stopped.open_on_drop();
        from.enter(|| send(at, n))?;
        drop(stopped);
        received.join().expect("the receiver does not panic")
    })
}

fn send(to: SocketAddr, n: u32) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("cannot open a socket")?;
    socket.connect(to)?;
    let never = Gate::default();
    for number in 0..n {
        socket.send(&datagram(number)).context("cannot send a datagram")?;
        if number % PER_BURST == 0 {
            never.pause(BURST_INTERVAL);
        }
    }
    Ok(())
}

fn datagram(number: u32) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(LENGTHS[number as usize % LENGTHS.len()], number as u8);
    bytes
}

fn receive(socket: &UdpSocket, stopped: &Gate) -> Result<SequenceCheck> {
    let mut seen = SequenceCheck::default();
    let mut buffer = [0; 8192];
    loop {
        let has_stopped = stopped.is_open();
        match socket.recv(&mut buffer) {
            Ok(len) => {
                let number = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                let number = number.context("a datagram of another sender")?;
                ensure!(buffer[..len] == datagram(number), "datagram {number} differs");
                seen.handle_arrival(number);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && has_stopped => return Ok(seen),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}
