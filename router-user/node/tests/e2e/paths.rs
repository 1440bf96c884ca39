//! Paths between nodes that lose packets by size or direction, or take long.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::support::delay_line::LaidDelayLine;
use crate::support::detour::Detour;
use crate::support::{NODE, machine, noise};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::{output, text, until};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Transport, Underlay, link};

/// What a transfer or a connection may take; much longer than it does.
const LIMIT: Duration = Duration::from_secs(40);

/// A peer has to be reached again in this time, over whatever address.
const FAIL_OVER_LIMIT: Duration = Duration::from_secs(10);

/// MTU of a path that is narrower than both ends know.
const NARROW_MTU: u32 = 1400;

const BULK_BYTES: usize = 8 << 20;

/// Two nodes that are not started, with a router between them.
fn prepared(underlay: Underlay) -> Result<(Pair, Detour)> {
    let plan = PairPlan {
        underlay,
        ..PairPlan::unique()
    };
    let pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("paths")?)?;
    let detour = Detour::lay(&pair)?;
    Ok((pair, detour))
}

/// Sends bytes from one host to another, which has to get them as they were.
fn carry((from, to): (&Namespace, &Namespace), at: IpAddr) -> Result<()> {
    let listener = to.enter(|| Ok(TcpListener::bind((at, 0))?))?;
    let at = listener.local_addr()?;
    let sent = noise(7, BULK_BYTES);
    let connected = from.enter(|| Ok(TcpStream::connect_timeout(&at, LIMIT)?));
    let mut near = connected.with_context(|| format!("cannot connect to {at}"))?;
    let (mut far, _) = listener.accept()?;
    far.set_read_timeout(Some(LIMIT))?;
    near.set_write_timeout(Some(LIMIT))?;
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            near.write_all(&sent)?;
            near.shutdown(std::net::Shutdown::Write)
        });
        let mut received = Vec::with_capacity(BULK_BYTES);
        let end = far.read_to_end(&mut received);
        let sending = sending.join().expect("the sender does not panic");
        end.with_context(|| format!("{} bytes to {at} arrived", received.len()))?;
        sending.context("not all was sent")?;
        ensure!(received == sent, "{} bytes, and not those sent", received.len());
        Ok(())
    })
}

fn carry_both_ways(pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a, &pair.b);
    carry((&a.host, &b.host), b.v4).context("from a to b")?;
    carry((&b.host, &a.host), a.v6).context("from b to a")
}

/// Largest segment of each TCP connection between the nodes that has sent bulk, at either side.
fn bulk_segments(pair: &Pair) -> Result<Vec<u64>> {
    let mut segments = Vec::new();
    for host in [&pair.a.host, &pair.b.host] {
        let mut sockets = host.command("ss");
        sockets.args(["-HOtin", "state", "established"]);
        for line in text(&mut sockets, LIMIT)?.lines() {
            let number = |name: &str| {
                let value = line.split(name).nth(1)?;
                value.split_whitespace().next()?.parse::<u64>().ok()
            };
            if number(" bytes_sent:").is_some_and(|sent| sent > BULK_BYTES as u64) {
                segments.push(number(" mss:").with_context(|| format!("no mss in {line}"))?);
            }
        }
    }
    Ok(segments)
}

#[test]
fn over_a_path_that_drops_large_packets_nodes_connect_and_carry_bulk() {
    let _machine = machine::shared();
    for underlay in [Underlay::V4, Underlay::V6] {
        let (mut pair, detour) = prepared(underlay).unwrap();
        detour.set_mtu(NARROW_MTU).unwrap();

        pair.start_nodes().unwrap();

        carry_both_ways(&pair).unwrap();
        let segments = bulk_segments(&pair).unwrap();
        assert!(
            segments.len() == 2 && segments.iter().all(|bytes| *bytes <= 1220),
            "{underlay:?}: {segments:?}"
        );
    }
}

#[test]
fn a_connection_recovers_when_its_path_begins_to_drop_large_packets() {
    let _machine = machine::shared();
    for underlay in [Underlay::V4, Underlay::V6] {
        // What is stuck is sent by the dialler or by the listener: each has a turn.
        for b_sends in [false, true] {
            let (mut pair, detour) = prepared(underlay).unwrap();
            pair.start_nodes().unwrap();
            carry_both_ways(&pair).unwrap();
            let segments = bulk_segments(&pair).unwrap();
            assert!(segments.iter().all(|bytes| *bytes > 1400), "{segments:?}");

            detour.set_mtu(NARROW_MTU).unwrap();
            let (a, b) = (&pair.a, &pair.b);
            if b_sends {
                carry((&b.host, &a.host), a.v4).unwrap();
            } else {
                carry((&a.host, &b.host), b.v4).unwrap();
            }

            carry_both_ways(&pair).unwrap();
        }
    }
}

#[test]
fn large_packets_are_carried_again_soon_after_one_direction_begins_to_drop_them() {
    let _machine = machine::shared();
    // The answers are lost, or what is asked; the other direction is idle either way.
    for deaf in [0, 1] {
        let (mut pair, detour) = prepared(Underlay::V4).unwrap();
        pair.start_nodes().unwrap();
        let large = PingPlan {
            count: 1,
            payload_bytes: 1350,
            patience: Duration::from_millis(300),
            ..PingPlan::new(pair.b.v4)
        };
        let answered = || Ok((large.run(&pair.a.host)?.n_received == 1).then_some(()));
        until("an answer over the whole path", LIMIT, answered).unwrap();

        detour.drop_large_to(&pair, deaf, NARROW_MTU).unwrap();

        let ((), taken) = until("an answer over the narrow path", FAIL_OVER_LIMIT, answered).unwrap();
        eprintln!("to host {deaf} large packets are lost: an answer after {taken:?}");
    }
}

#[test]
fn over_round_trips_of_more_than_two_seconds_nodes_connect_and_stay_connected() {
    let _machine = machine::shared();
    for transport in [Transport::Tcp, Transport::Quic] {
        let plan = PairPlan {
            transport,
            ..PairPlan::unique()
        };
        let directory = ScratchDir::unique("paths").unwrap();
        let mut pair = Pair::prepare(Path::new(NODE), &plan, directory).unwrap();
        let _line = LaidDelayLine::lay(&pair, Duration::from_millis(1250)).unwrap();
        pair.a.node.start().unwrap();
        pair.b.node.start().unwrap();
        let (a, b) = (&pair.a, &pair.b);
        let ((), taken) = until("both are connected", LIMIT, || {
            let at_a = a.node.status()?.is_connected(b.node.peer_id());
            let at_b = b.node.status()?.is_connected(a.node.peer_id());
            Ok((at_a && at_b).then_some(()))
        })
        .unwrap();
        eprintln!("{transport:?}: connected after {taken:?}");

        let pings = PingPlan {
            count: 20,
            interval: Duration::from_millis(500),
            patience: Duration::from_secs(8),
            ..PingPlan::new(b.v4)
        };
        let report = pings.run(&a.host).unwrap();

        assert_eq!(report.n_lost(), 0, "{transport:?}: {report:?}");
        // The line rounds to its ticks.
        assert!(report.rtts_ms[0] >= 2490.0, "{transport:?}: {report:?}");

        // What is lost comes again a round trip or two later, which is longer than a dead peer is waited for on a short path.
        let pings = PingPlan {
            patience: Duration::from_secs(20),
            ..pings
        };
        let n_lost_connections = || {
            let logs = [a, b].map(|side| side.node.log().unwrap());
            logs.map(|log| log.matches("disconnected").count())
        };
        let before = n_lost_connections();
        let rules = "table inet loss { chain arriving { type filter hook prerouting priority raw; iifname u0 drop; }; }";
        let report = thread::scope(|scope| {
            let report = scope.spawn(|| pings.run(&a.host));
            thread::sleep(Duration::from_secs(2));
            text(b.host.command("nft").arg(rules), LIMIT)?;
            thread::sleep(Duration::from_secs(1));
            text(
                b.host.command("nft").args(["delete", "table", "inet", "loss"]),
                LIMIT,
            )?;
            report.join().map_err(|_panic| anyhow!("the pings panicked"))?
        });
        let report = report.unwrap();

        assert_eq!(report.n_lost(), 0, "{transport:?}: {report:?}");
        for (side, other) in [(a, b), (b, a)] {
            assert!(side.node.status().unwrap().is_connected(other.node.peer_id()));
        }
        assert_eq!(n_lost_connections(), before, "{transport:?}");
    }
}

#[test]
fn doctor_finds_a_path_that_drops_large_packets_and_names_a_setting_that_helps() {
    let _machine = machine::shared();
    let (mut pair, detour) = prepared(Underlay::V4).unwrap();
    pair.b.node.start().unwrap();
    let host = &pair.a.host;
    let config = pair.a.node.config();
    let doctor = || {
        let mut doctor = host.command(NODE);
        doctor.args(["doctor", "--json", "--config"]).arg(&config);
        let report: Value = serde_json::from_slice(&output(&mut doctor, LIMIT)?.stdout)?;
        let findings = report["findings"].as_array().context("no findings")?;
        let of_path = findings.iter().find(|finding| finding["check"] == "path");
        of_path.cloned().context("no finding about the path")
    };

    let whole = doctor().unwrap();
    detour.set_mtu(NARROW_MTU).unwrap();
    let narrow = doctor().unwrap();

    assert_eq!(whole["verdict"], "ok", "{whole}");
    assert_eq!(whole["detail"], "a full segment of 1448 bytes arrives");
    assert_eq!(narrow["verdict"], "warning", "{narrow}");
    let command = narrow["fix"].as_str().unwrap();
    text(host.command("sh").args(["-c", command]), LIMIT).unwrap();
    let mended = doctor().unwrap();
    assert_eq!(mended["verdict"], "ok", "{mended}");
}

#[test]
fn a_peer_is_reached_at_another_address_when_one_loses_packets_in_one_direction() {
    let _machine = machine::shared();
    for lossy in ["a", "b"] {
        let mut pair = Pair::prepare(
            Path::new(NODE),
            &PairPlan::unique(),
            ScratchDir::unique("paths").unwrap(),
        )
        .unwrap();
        for (side, other) in [(&mut pair.a, 2), (&mut pair.b, 1)] {
            side.config.listen.push("/ip6/::/tcp/4001".to_owned());
            let second = format!("/ip6/2001:db8::{other}/tcp/4001");
            side.config.peers[0].addresses.push(second);
            side.node.configure(&side.config).unwrap();
        }
        pair.start_nodes().unwrap();
        assert!(answers(&pair.a.host, pair.b.v4, LIMIT).unwrap());
        // Made only now, so that the connection stands at the first address.
        link(
            (&pair.a.host, "u1", &["2001:db8::1/64"]),
            (&pair.b.host, "u1", &["2001:db8::2/64"]),
        )
        .unwrap();

        let deaf = if lossy == "a" { &pair.a } else { &pair.b };
        let rules = "table inet loss { chain arriving { type filter hook prerouting priority raw; iifname u0 drop; }; }";
        text(deaf.host.command("nft").arg(rules), LIMIT).unwrap();

        let (a, b) = (&pair.a, &pair.b);
        let patience = Duration::from_millis(200);
        let answered = || {
            let over_the_other = |address: Option<&str>| address.is_some_and(|at| at.starts_with("/ip6/"));
            let status = a.node.status()?;
            let moved = over_the_other(status.peer(b.node.peer_id())?.address.as_deref());
            Ok((moved && answers(&a.host, b.v4, patience)?).then_some(()))
        };
        let ((), taken) = until("an answer over the other address", FAIL_OVER_LIMIT, answered).unwrap();
        eprintln!("{lossy} hears nothing: an answer over the other address after {taken:?}");
    }
}
