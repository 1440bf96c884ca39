//! A receiver that stands still while the connection with the most unread data is reset.
//!
//! `STREAM_ROUTER_ORDER_THREADS` sets the threads of each node, `STREAM_ROUTER_ORDER_PACKETS` how many packets come to each
//! of them between two standstills.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{OUTAGE, Scaled, duration, scale};
use crate::support::{NODE, machine};
use xtask::lab::probe::Gate;
use xtask::lab::probe::Tally;
use xtask::lab::probe::UdpPlan;
use xtask::lab::probe::datagrams;
use xtask::lab::process::{text, until};
use xtask::lab::{Pair, PairPlan, ScratchDir, Side, Transport};

const LOAD: UdpPlan = UdpPlan {
    n_flows: 256,
    short_len: 1000,
    rate: 30_000,
};
const CONNECTIONS: usize = 4;
/// Enough for megabytes to wait in the kernel, and too little for any connection to be given up.
const STANDSTILL: Duration = Duration::from_millis(350);
/// When the reset comes.
const BEFORE_THE_RESET: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_receiver_that_stands_still_while_a_connection_is_reset_reorders_nothing() {
    let _machine = machine::alone();
    let pair = pair_of_threads(Transport::Tcp).expect("the nodes start");

    let tallies = load_both_ways(&pair, |round| {
        let stopped = if round % 2 == 0 { &pair.b } else { &pair.a };
        wait_for_connections(stopped)?;
        let standstill = Standstill::begin(stopped)?;
        thread::sleep(BEFORE_THE_RESET);
        reset_fullest(stopped)?;
        thread::sleep(STANDSTILL - BEFORE_THE_RESET);
        standstill.end()?;
        wait_for_more(&pair)
    });

    for tally in tallies {
        assert_nothing_reordered(&tally);
    }
}

#[test]
fn a_receiver_that_stands_still_until_it_is_given_up_reorders_nothing_over_quic() {
    let _machine = machine::alone();
    let pair = pair_of_threads(Transport::Quic).expect("the nodes start");

    let tallies = load_both_ways(&pair, |_| {
        let standstill = Standstill::begin(&pair.b)?;
        let lost = |status: &xtask::lab::Status| !status.is_connected(pair.b.node.peer_id());
        pair.a.node.wait_for("the connection is given up", LIMIT, lost)?;
        standstill.end()?;
        pair.a.node.wait_connected(&pair.b.node, OUTAGE)?;
        wait_for_more(&pair)
    });

    for tally in tallies {
        assert_nothing_reordered(&tally);
    }
}

fn pair_of_threads(transport: Transport) -> Result<Pair> {
    let threads = std::env::var("STREAM_ROUTER_ORDER_THREADS").unwrap_or_else(|_| "2".to_owned());
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("stall")?)?;
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections = format!(
            "\n[workers]\nthreads = {threads}\n[streams]\nscale_interval = \"1h\"\n\
             [transport]\nconnections_per_peer = {CONNECTIONS}\n"
        );
        side.node.configure(&side.config)?;
    }
    pair.start_nodes()?;
    for side in [&pair.a, &pair.b] {
        scale(side, Scaled::Streams, 10);
    }
    Ok(pair)
}

/// Loads the pair both ways while rounds of `disturb` go on.
fn load_both_ways(pair: &Pair, disturb: impl Fn(u32) -> Result<()>) -> [Tally; 2] {
    let done = Gate::default();
    let (a, b) = (&pair.a, &pair.b);
    thread::scope(|scope| {
        let back = scope.spawn(|| datagrams(LOAD, (&b.host, &a.host), a.v4, || done.wait()));
        let done = done.open_on_drop();
        let there = datagrams(LOAD, (&a.host, &b.host), b.v4, || {
            let started = Instant::now();
            for round in 0.. {
                disturb(round).expect("the nodes go on");
                if started.elapsed() >= duration() {
                    break;
                }
            }
            drop(done);
        });
        let back = back.join().expect("no panic");
        [there, back].map(|tally| tally.expect("datagrams can be sent"))
    })
}

fn assert_nothing_reordered(tally: &Tally) {
    eprintln!("{tally}");
    let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
    assert_eq!(faults, (0, 0, 0), "{tally}");
    assert!(tally.n_sent > tally.n_lost + 1000, "{tally}");
}

/// Waits until enough more packets have come to each node.
fn wait_for_more(pair: &Pair) -> Result<()> {
    let n: u64 = match std::env::var("STREAM_ROUTER_ORDER_PACKETS") {
        Ok(n) => n.parse()?,
        Err(_unset) => 1000,
    };
    for (side, from) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let received = || -> Result<u64> { Ok(side.node.status()?.peer(from.node.peer_id())?.rx_frames) };
        let wanted = received()? + n;
        until("packets arrive", OUTAGE, || {
            Ok((received()? >= wanted).then_some(()))
        })?;
    }
    Ok(())
}

/// A node's process that is stopped, until this goes out of scope.
struct Standstill(Pid);

impl Standstill {
    fn begin(side: &Side) -> Result<Self> {
        let process = side.node.process_id().context("the node runs")?;
        let process = Pid::from_raw(i32::try_from(process)?);
        kill(process, Signal::SIGSTOP)?;
        Ok(Self(process))
    }

    fn end(self) -> Result<()> {
        Ok(kill(self.0, Signal::SIGCONT)?)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        // The node may have ended.
        let _gone = kill(self.0, Signal::SIGCONT);
    }
}

/// A TCP connection of a host as `ss` shows it.
struct Connection {
    n_unread: u64,
    local: String,
    remote: String,
}

fn connections(side: &Side) -> Result<Vec<Connection>> {
    let mut sockets = side.host.command("ss");
    sockets.args(["-HOtn", "state", "established"]);
    let connection = |line: &str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("a line of ss is short");
        let n_unread = word()?.parse()?;
        word()?;
        let (local, remote) = (word()?.to_owned(), word()?.to_owned());
        Ok(Connection {
            n_unread,
            local,
            remote,
        })
    };
    text(&mut sockets, LIMIT)?.lines().map(connection).collect()
}

fn wait_for_connections(side: &Side) -> Result<()> {
    until("all connections stand", LIMIT, || {
        Ok((connections(side)?.len() >= CONNECTIONS).then_some(()))
    })?;
    Ok(())
}

/// Resets the connection that has the most unread data.
fn reset_fullest(side: &Side) -> Result<()> {
    let connections = connections(side)?;
    let fullest = connections.iter().max_by_key(|connection| connection.n_unread);
    let fullest = fullest.context("a connection stands")?;
    let mut reset = side.host.command("ss");
    reset.args(["-HOtnK", "src", &fullest.local, "dst", &fullest.remote]);
    let killed = text(&mut reset, LIMIT)?;
    ensure!(killed.contains(&fullest.remote), "ss -K reset nothing");
    Ok(())
}
