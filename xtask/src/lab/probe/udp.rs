//! Numbered datagrams of many flows, in one direction.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::gate::Gate;
use super::sequence::SequenceCheck;
use super::tally::Tally;

const HEADER_LEN: usize = 8;
/// Payloads go up to here: a full packet at the default MTU, over IPv6.
const MAX_PAYLOAD: usize = 1372;
/// A receiver that does not get the CPU for some time loses nothing.
const RECEIVE_BUFFER: usize = 64 * 1024 * 1024;
/// How long nothing has to come after the senders have stopped, before the rest counts as lost.
const QUIET: Duration = Duration::from_millis(800);
const BURST_INTERVAL: Duration = Duration::from_millis(1);

/// What a sender sends.
#[derive(Clone, Copy, Debug)]
pub struct UdpPlan {
    /// Flows at any time; half of them last to the end.
    pub n_flows: usize,
    /// Datagrams after which a flow of the other half ends and a new one takes its place.
    pub short_len: u32,
    /// Datagrams per second of all flows together.
    pub rate: u32,
}

struct Flow {
    id: u32,
    socket: UdpSocket,
    next: u32,
}

/// Sends until `stop`; returns how many datagrams of each flow were taken by the host.
///
/// # Errors
/// When a socket cannot be made, or the host refuses a datagram.
pub fn send(plan: UdpPlan, to: SocketAddr, stop: &Gate) -> Result<Vec<u32>> {
    let mut sent = Vec::new();
    let mut flows: Vec<Flow> = Vec::new();
    for _ in 0..plan.n_flows {
        flows.push(open(to, &mut sent)?);
    }
    let started = Instant::now();
    let mut n: u64 = 0;
    // The rate is kept by bursts.
    while !stop.pause(BURST_INTERVAL) {
        let due = u64::from(plan.rate) * started.elapsed().as_millis() as u64 / 1000;
        while n < due {
            let index = n as usize % plan.n_flows;
            n += 1;
            let flow = &mut flows[index];
            match flow.socket.send(&datagram(flow.id, flow.next)) {
                Ok(_) => {
                    flow.next += 1;
                    sent[flow.id as usize] = flow.next;
                }
                // The host has told us that it did not take it.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error).context("cannot send a datagram"),
            }
            if index >= plan.n_flows / 2 && flow.next >= plan.short_len {
                flows[index] = open(to, &mut sent)?;
            }
        }
    }
    Ok(sent)
}

fn open(to: SocketAddr, sent: &mut Vec<u32>) -> Result<Flow> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("cannot open a socket")?;
    socket.connect(to).context("cannot connect a socket")?;
    sent.push(0);
    Ok(Flow {
        id: sent.len() as u32 - 1,
        socket,
        next: 0,
    })
}

/// Its content and length follow from flow and number.
fn datagram(flow: u32, number: u32) -> Vec<u8> {
    let seed = flow.wrapping_mul(0x9e37_79b9) ^ number.wrapping_mul(0x85eb_ca6b);
    let len = HEADER_LEN + seed as usize % (MAX_PAYLOAD - HEADER_LEN + 1);
    let mut bytes = [flow.to_be_bytes(), number.to_be_bytes()].concat();
    bytes.extend((HEADER_LEN..len).map(|i| (seed as usize + i) as u8));
    bytes
}

/// Opens the receiving end, so that it is there before the first datagram.
///
/// # Errors
/// When the address is not free.
pub fn receiver(at: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(at).context("cannot open the receiver")?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .context("cannot enlarge the receive buffer")?;
    socket.set_read_timeout(Some(QUIET))?;
    Ok(socket)
}

/// Receives until `stop`, and then until nothing has come for a while.
///
/// # Errors
/// When the socket fails.
pub fn receive(socket: &UdpSocket, stop: &Gate) -> Result<(Vec<SequenceCheck>, u64)> {
    let mut flows: Vec<SequenceCheck> = Vec::new();
    let mut n_corrupt = 0;
    let mut buffer = [0; 2048];
    loop {
        let has_stopped = stop.is_open();
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock && has_stopped => {
                return Ok((flows, n_corrupt));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("cannot receive"),
        };
        let bytes = &buffer[..len];
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        match (word(0), word(4)) {
            (Some(flow), Some(number)) if bytes == datagram(flow, number) => {
                if flow as usize >= flows.len() {
                    flows.resize(flow as usize + 1, SequenceCheck::default());
                }
                flows[flow as usize].handle_arrival(number);
            }
            _ => n_corrupt += 1,
        }
    }
}

/// Compares what was sent with what arrived.
pub fn tally(sent: &[u32], (flows, n_corrupt): (Vec<SequenceCheck>, u64)) -> Tally {
    let sum = |of: fn(&SequenceCheck) -> u64| flows.iter().map(of).sum::<u64>();
    let n_sent = sent.iter().map(|n| u64::from(*n)).sum::<u64>();
    Tally {
        n_flows: sent.len() as u64,
        n_sent,
        n_lost: n_sent.saturating_sub(sum(|flow| flow.n_distinct)),
        n_reordered: sum(|flow| flow.n_reordered),
        n_duplicated: sum(|flow| flow.n_duplicated),
        n_corrupt,
    }
}
