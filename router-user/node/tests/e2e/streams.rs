//! Streams that come with throughput and go once they are idle.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::support::{NODE, machine, runtime};
use stream_router_node::control::{ControlError, set_streams};
use xtask::lab::process::{text, until};
use xtask::lab::{Pair, PairPlan, ScratchDir, Side, Transport};

const LIMIT: Duration = Duration::from_secs(20);
const FIRST_PORT: u16 = 20_000;
const N_FLOWS: u16 = 200;
const DATAGRAM: [u8; 1000] = [7; 1000];

/// A pair whose first node has these sections, and forgets flows fast.
fn pair(transport: Transport, streams: &str) -> Result<Pair> {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("streams")?)?;
    pair.a.config.sections = format!("\n[streams]\n{streams}\n[connections]\nttl = \"500ms\"\n");
    pair.a.node.configure(&pair.a.config)?;
    pair.start_nodes()?;
    Ok(pair)
}

/// Streams open between the two, both ways; nobody answers to the datagrams, so they are the first node's.
fn n_streams(pair: &Pair) -> Result<u32> {
    let status = pair.a.node.status()?;
    Ok(status.peer(pair.b.node.peer_id())?.streams)
}

/// One datagram of each flow.
fn send(pair: &Pair, socket: &UdpSocket) -> Result<()> {
    for port in 0..N_FLOWS {
        socket.send_to(&DATAGRAM, SocketAddr::new(pair.b.v4, FIRST_PORT + port))?;
    }
    Ok(())
}

fn bind(at: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))
}

/// A socket of the first host, whose datagrams are flows of their own.
fn sender(pair: &Pair) -> Result<UdpSocket> {
    pair.a.host.enter(|| bind(SocketAddr::new(pair.a.v4, 0)))
}

/// Sockets of the second host that take what comes without an answer.
fn receivers(pair: &Pair) -> Result<Vec<UdpSocket>> {
    let at = |port| SocketAddr::new(pair.b.v4, FIRST_PORT + port);
    pair.b
        .host
        .enter(|| (0..N_FLOWS).map(|port| bind(at(port))).collect())
}

fn set(side: &Side, n: u32) -> Result<(), ControlError> {
    runtime().block_on(set_streams(&side.node.socket(), n))
}

#[test]
fn new_flows_open_the_streams_that_are_active_and_idle_ones_close_over_both_transports() {
    let _machine = machine::shared();
    for transport in [Transport::Tcp, Transport::Quic] {
        let pair = pair(transport, "scale_interval = \"1h\"").unwrap();
        let (socket, _receivers) = (sender(&pair).unwrap(), receivers(&pair).unwrap());

        send(&pair, &socket).unwrap();
        until("one stream", LIMIT, || Ok((n_streams(&pair)? == 1).then_some(()))).unwrap();
        set(&pair.a, 10).unwrap();
        // From another port all flows are new.
        send(&pair, &sender(&pair).unwrap()).unwrap();
        until("ten streams", LIMIT, || {
            Ok((n_streams(&pair)? == 10).then_some(()))
        })
        .unwrap();
        set(&pair.a, 1).unwrap();
        until("one stream again", LIMIT, || {
            Ok((n_streams(&pair)? == 1).then_some(()))
        })
        .unwrap();
        send(&pair, &socket).unwrap();

        let received =
            || Ok((pair.b.node.status()?.peer(pair.a.node.peer_id())?.rx_frames >= 600).then_some(()));
        until("all datagrams", LIMIT, received).unwrap();
        assert_eq!(n_streams(&pair).unwrap(), 1, "{transport:?}");
    }
}

#[test]
fn throughput_adds_streams_and_quiet_takes_them_away() {
    let _machine = machine::shared();
    let pair = pair(
        Transport::Tcp,
        "scale_interval = \"100ms\"\nthroughput_threshold = 100\nmax_per_peer = 4",
    )
    .unwrap();
    let _receivers = receivers(&pair).unwrap();

    // Flows stay where they are: only new ones open what was added.
    until("four streams", LIMIT, || {
        send(&pair, &sender(&pair)?)?;
        Ok((n_streams(&pair)? == 4).then_some(()))
    })
    .unwrap();
    until("one stream", LIMIT, || Ok((n_streams(&pair)? == 1).then_some(()))).unwrap();
}

/// Bytes that the first node has sent on each of its TCP connections to the second.
fn sent_bytes(pair: &Pair) -> Result<Vec<u64>> {
    let mut sockets = pair.a.host.command("ss");
    sockets.args(["-HOtin", "state", "established"]);
    let connections = text(&mut sockets, LIMIT)?;
    let sent = |line: &str| {
        let sent = line.split("bytes_sent:").nth(1)?;
        sent.split_whitespace().next()?.parse().ok()
    };
    let read = |line| sent(line).with_context(|| format!("no bytes_sent in {line:?}"));
    connections.lines().map(read).collect()
}

#[test]
fn streams_beyond_the_first_are_spread_over_more_connections() {
    let _machine = machine::shared();
    let plan = PairPlan::unique();
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("streams").unwrap()).unwrap();
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections =
            "\n[streams]\nscale_interval = \"1h\"\n[transport]\nconnections_per_peer = 3\n".to_owned();
        side.node.configure(&side.config).unwrap();
    }
    pair.start_nodes().unwrap();
    let (socket, _receivers) = (sender(&pair).unwrap(), receivers(&pair).unwrap());
    // Both may have dialled at once.
    let n_first = sent_bytes(&pair).unwrap().len();
    assert!((1..=2).contains(&n_first), "{n_first}");

    for side in [&pair.a, &pair.b] {
        set(side, 10).unwrap();
    }
    send(&pair, &socket).unwrap();

    until("ten streams", LIMIT, || {
        Ok((n_streams(&pair)? == 10).then_some(()))
    })
    .unwrap();
    let received = || Ok((pair.b.node.status()?.peer(pair.a.node.peer_id())?.rx_frames >= 200).then_some(()));
    until("all datagrams", LIMIT, received).unwrap();
    let sent = sent_bytes(&pair).unwrap();
    // Both may have dialled another at once, too; what is one too many carries nothing.
    assert!((3..=4).contains(&sent.len()), "{sent:?}");
    let a_stream = u64::from(N_FLOWS) * DATAGRAM.len() as u64 / 10;
    let n_used = sent.iter().filter(|sent| **sent > a_stream).count();
    assert_eq!(n_used, 3, "{sent:?}");
}

#[test]
fn numbers_outside_the_bounds_are_refused() {
    let _machine = machine::shared();
    let pair = pair(Transport::Tcp, "max_per_peer = 4").unwrap();

    for n in [0, 5] {
        let refused = set(&pair.a, n).unwrap_err();
        let expected = format!("{n} is outside streams.min_per_peer to streams.max_per_peer, 1 to 4");
        assert!(
            matches!(&refused, ControlError::Refused { reason, .. } if *reason == expected),
            "{refused}"
        );
    }
    set(&pair.a, 4).unwrap();
}
