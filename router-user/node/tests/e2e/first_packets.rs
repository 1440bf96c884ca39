//! The first packets for a peer that is not connected yet.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::udp;
use xtask::lab::process::{text, until};
use xtask::lab::{NodeConfig, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 7500;

/// Packets that may wait for one peer.
const MAX_HELD: u64 = 256;

/// Two nodes that are not started, and whose packets wait for so long.
fn prepared(hold_time: &str) -> Result<Pair> {
    let plan = PairPlan::unique();
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("first")?)?;
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections = format!("\n[transport]\nhold_time = \"{hold_time}\"\n");
        side.node.configure(&side.config)?;
    }
    Ok(pair)
}

/// A counter of a node that runs.
fn counter(side: &Side, name: &str) -> Result<u64> {
    side.node.status()?.counter(name)
}

fn wait_held(side: &Side, n: u64) -> Result<()> {
    until("packets wait", LIMIT, || {
        Ok((counter(side, "tx_held")? >= n).then_some(()))
    })?;
    Ok(())
}

/// Connects from the node that is there to the one that is started meanwhile.
fn connect_before_the_peer_is_there(early: &mut Side, late: &mut Side) -> Result<()> {
    let to = SocketAddr::new(late.v4, PORT);
    let listener = late
        .host
        .bind(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    early.node.start()?;
    let host = &early.host;
    thread::scope(|scope| {
        let connecting = scope.spawn(|| host.enter(|| Ok(TcpStream::connect_timeout(&to, LIMIT)?)));
        wait_held(early, 1)?;
        late.node.start()?;
        let connected = connecting.join().expect("the client does not panic");
        let near = connected.context("the connection is refused")?;
        ensure!(listener.accept()?.1 == near.local_addr()?);
        Ok(())
    })?;
    early.node.stop(Signal::SIGTERM)?;
    late.node.stop(Signal::SIGTERM)?;
    Ok(())
}

#[test]
fn connecting_right_after_the_start_succeeds_though_the_peer_comes_later() {
    let _machine = machine::shared();
    let mut pair = prepared("60s").unwrap();

    for round in 0..6 {
        let (early, late) = if round % 2 == 0 {
            (&mut pair.a, &mut pair.b)
        } else {
            (&mut pair.b, &mut pair.a)
        };
        connect_before_the_peer_is_there(early, late)
            .with_context(|| format!("round {round}"))
            .unwrap();
    }
}

#[test]
fn packets_that_waited_arrive_in_order_before_those_that_came_later() {
    let _machine = machine::shared();
    const N_EARLY: u32 = 200;
    const N_CONNECTED: u32 = 250;
    const N_ALL: u32 = 350;
    let mut pair = prepared("60s").unwrap();
    let to = SocketAddr::new(pair.b.v4, PORT);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    // All of them may arrive before one is read.
    let receiver = pair.b.host.enter(|| udp::receiver(any)).unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    pair.a.node.start().unwrap();
    let sender = pair
        .a
        .host
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))
        .unwrap();
    let send = |number: u32| {
        sender.send_to(&number.to_be_bytes(), to).unwrap();
    };

    (0..N_EARLY).for_each(send);
    wait_held(&pair.a, u64::from(N_EARLY)).unwrap();
    pair.b.node.start().unwrap();
    // Some while the peer connects, others after.
    for number in N_EARLY..N_CONNECTED {
        send(number);
        thread::sleep(Duration::from_millis(5));
    }
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    (N_CONNECTED..N_ALL).for_each(send);

    let mut buffer = [0; 4];
    for expected in 0..N_ALL {
        receiver.recv(&mut buffer).unwrap();
        assert_eq!(u32::from_be_bytes(buffer), expected, "lost or overtaken");
    }
}

#[test]
fn a_sender_is_told_when_the_peer_does_not_come_in_time() {
    let _machine = machine::shared();
    let mut pair = prepared("3s").unwrap();
    pair.a.node.start().unwrap();

    let to = SocketAddr::new(pair.b.v4, PORT);
    let refused = pair
        .a
        .host
        .enter(|| Ok(TcpStream::connect_timeout(&to, LIMIT).err()))
        .unwrap();

    let kind = refused.map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::HostUnreachable));
    for name in ["tx_held", "tx_peer_down", "icmp_unreachable_sent"] {
        assert!(counter(&pair.a, name).unwrap() >= 1, "{name}");
    }
}

#[test]
fn a_peer_that_comes_back_by_a_reload_is_waited_for_again() {
    let _machine = machine::shared();
    let mut pair = prepared("100ms").unwrap();
    pair.a.node.start().unwrap();
    let socket = pair
        .a
        .host
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))
        .unwrap();
    let to = SocketAddr::new(pair.b.v4, PORT);
    // Until the time is over, each of them waits.
    until("nothing waits any more", LIMIT, || {
        let before = counter(&pair.a, "tx_held")?;
        // An ICMP error to an earlier one is no fault of this.
        let _told = socket.send_to(b"anybody there", to);
        let status = pair.a.node.status()?;
        Ok((status.counter("tx_peer_down")? > 0 && status.counter("tx_held")? == before).then_some(()))
    })
    .unwrap();
    let reload = |config: &NodeConfig| {
        pair.a.node.configure(config)?;
        let mut reload = pair.a.host.command(NODE);
        text(
            reload.args(["reload", "--socket"]).arg(pair.a.node.socket()),
            LIMIT,
        )
    };
    let without = NodeConfig {
        peers: Vec::new(),
        ..pair.a.config.clone()
    };
    reload(&without).unwrap();
    let before = counter(&pair.a, "tx_held").unwrap();

    until("a packet waits for the peer that is back", LIMIT, || {
        reload(&without)?;
        reload(&pair.a.config)?;
        let _told = socket.send_to(b"anybody there", to);
        Ok((counter(&pair.a, "tx_held")? > before).then_some(()))
    })
    .unwrap();
}

#[test]
fn what_waits_for_a_peer_is_bounded() {
    let _machine = machine::shared();
    const N_SENT: u64 = 1000;
    let mut pair = prepared("60s").unwrap();
    pair.a.node.start().unwrap();
    let socket = pair
        .a
        .host
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))
        .unwrap();

    for _ in 0..N_SENT {
        socket
            .send_to(b"anybody there", SocketAddr::new(pair.b.v4, PORT))
            .unwrap();
    }

    let all = || {
        let (held, full) = (counter(&pair.a, "tx_held")?, counter(&pair.a, "tx_queue_full")?);
        Ok((held + full >= N_SENT).then_some((held, full)))
    };
    let ((held, full), _) = until("every datagram is counted", LIMIT, all).unwrap();
    // The kernel's own neighbour and router messages may wait as well.
    assert_eq!(held, MAX_HELD);
    assert!(full >= N_SENT - MAX_HELD, "{full}");
    assert_eq!(counter(&pair.a, "icmp_unreachable_sent").unwrap(), 0);
}
