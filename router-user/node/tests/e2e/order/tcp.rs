//! TCP connections that say whether their segments came once each, and in order.
//!
//! An application sees a stream in order whatever happened to its segments, so the kernel is asked (`struct tcp_info`,
//! `include/uapi/linux/tcp.h`).
#![expect(unsafe_code, reason = "getsockopt of TCP_INFO")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::socket::{Shutdown, shutdown};

use xtask::lab::probe::Gate;
use xtask::lab::probe::Tally;

const CHUNK: usize = 8 * 1024;
const PAUSE: Duration = Duration::from_millis(25);
/// Chunks after which a connection ends and a new one takes its place.
const SHORT_LEN: u32 = 40;
/// A connection on which nothing moves for so long is stuck, however busy the machine.
const STUCK: Duration = Duration::from_secs(60);
const INFO_LEN: usize = 232;
const SEGS_OUT: usize = 136;
const DSACK_DUPS: usize = 216;
const TOTAL_RETRANS: usize = 100;
const RCV_OOOPACK: usize = 224;

/// Runs `n_flows` connections at a time until `stop`, every other one short; each sends its number and then a pattern.
pub(crate) fn send(n_flows: usize, to: SocketAddr, stop: &Gate) -> Result<Tally> {
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..n_flows)
            .map(|lane| scope.spawn(move || send_lane(lane % 2 == 0, to, stop)))
            .collect();
        let mut tally = Tally::default();
        for lane in lanes {
            tally += lane.join().expect("a lane does not panic")?;
        }
        Ok(tally)
    })
}

fn send_lane(short: bool, to: SocketAddr, stop: &Gate) -> Result<Tally> {
    let chunk: Vec<u8> = (0..CHUNK).map(pattern).collect();
    let mut tally = Tally::default();
    while !stop.is_open() {
        let mut stream = TcpStream::connect_timeout(&to, STUCK).context("cannot connect")?;
        limit_waiting(&stream)?;
        let mut n = 0;
        loop {
            stream.write_all(&chunk).context("cannot send")?;
            n += 1;
            if stop.pause(PAUSE) || short && n >= SHORT_LEN {
                break;
            }
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // The receiver closes once it has everything.
        let n_read = stream.read(&mut [0]).context("the receiver does not close")?;
        ensure!(n_read == 0, "the receiver sends nothing");
        let info = tcp_info(&stream)?;
        // On a busy machine TCP sends a tail again that is only late, and is told so by the receiver.
        let (n_again, n_twice) = (word(&info, TOTAL_RETRANS), word(&info, DSACK_DUPS));
        tally += Tally {
            n_flows: 1,
            n_sent: word(&info, SEGS_OUT),
            n_lost: n_again.saturating_sub(n_twice),
            n_duplicated: n_twice.saturating_sub(n_again),
            ..Tally::default()
        };
    }
    Ok(tally)
}

/// Opens the receiving end.
pub(crate) fn listener(at: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(at).context("cannot listen")
}

/// Has a listener accept nothing more when it goes out of scope; who waits for a connection is told.
pub(crate) struct CloseOnDrop<'a>(pub(crate) &'a TcpListener);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        if let Err(error) = shutdown(self.0.as_raw_fd(), Shutdown::Read) {
            eprintln!("cannot close the listener: {error}");
        }
    }
}

/// Receives every connection to its end, until the listener is closed.
pub(crate) fn receive(listener: &TcpListener) -> Result<Tally> {
    thread::scope(|scope| {
        let mut lanes = Vec::new();
        loop {
            match listener.accept() {
                Ok((stream, _)) => lanes.push(scope.spawn(move || receive_lane(stream))),
                Err(error) if error.kind() == ErrorKind::InvalidInput => break,
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
        let mut tally = Tally::default();
        for lane in lanes {
            tally += lane.join().expect("a lane does not panic")?;
        }
        Ok(tally)
    })
}

fn receive_lane(mut stream: TcpStream) -> Result<Tally> {
    limit_waiting(&stream)?;
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK];
    let mut position = 0;
    loop {
        let len = stream.read(&mut buffer).context("cannot receive")?;
        if len == 0 {
            break;
        }
        let wrong = |(i, byte): (usize, &u8)| *byte != pattern((position + i) % CHUNK);
        tally.n_corrupt += buffer[..len].iter().enumerate().filter(|at| wrong(*at)).count() as u64;
        position += len;
    }
    tally.n_reordered = word(&tcp_info(&stream)?, RCV_OOOPACK);
    Ok(tally)
}

fn limit_waiting(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STUCK))?;
    Ok(stream.set_write_timeout(Some(STUCK))?)
}

fn pattern(position: usize) -> u8 {
    (position % 251) as u8
}

fn word(info: &[u8; INFO_LEN], at: usize) -> u64 {
    let bytes = info[at..at + 4].try_into().expect("four bytes");
    u64::from(u32::from_ne_bytes(bytes))
}

fn tcp_info(stream: &TcpStream) -> Result<[u8; INFO_LEN]> {
    let mut info = [0; INFO_LEN];
    let mut len = INFO_LEN as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into the array that `len` is the size of.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    ensure!(outcome == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    ensure!(
        len as usize >= RCV_OOOPACK + 4,
        "this kernel's TCP_INFO ends at {len}; it needs Linux 5.4"
    );
    Ok(info)
}
