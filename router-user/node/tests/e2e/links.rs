//! Links that are slow, shaped or marked.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::reload::ask::reload_with;
use crate::support::slow_link::{LinkPlan, SlowLink, loaded};
use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{signal, text, wait};
use xtask::lab::{Node, Pair, PairPlan, ScratchDir, Side, Status, Transport, Underlay};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn packets_wait_where_they_can_be_passed_and_dropped_over_tcp() {
    let _machine = machine::alone();
    bounds_what_waits_below_the_outbox(Transport::Tcp);
}

#[test]
fn packets_wait_where_they_can_be_passed_and_dropped_over_quic() {
    let _machine = machine::alone();
    bounds_what_waits_below_the_outbox(Transport::Quic);
}

#[test]
fn a_busy_connection_on_a_very_slow_link_is_not_cut_over_tcp() {
    let _machine = machine::alone();
    keeps_a_busy_connection(Transport::Tcp);
}

#[test]
fn a_busy_connection_on_a_very_slow_link_is_not_cut_over_quic() {
    let _machine = machine::alone();
    keeps_a_busy_connection(Transport::Quic);
}

#[test]
fn a_burst_that_the_link_has_room_for_arrives_whole() {
    // Much more than the fill at which TCP is refused, and than CoDel's interval at this rate.
    const BURST: usize = 3000;
    const ROUNDS: u8 = 10;
    const DATAGRAM: usize = 1316;
    let _machine = machine::alone();
    for transport in [Transport::Tcp, Transport::Quic] {
        let link = SlowLink::start(&LinkPlan {
            kbit: 100_000,
            buffer_bytes: 5_000_000,
            transport,
        })
        .expect("the pair starts");
        let pair = &link.pair;
        let bind = |side: &Side| side.host.enter(|| Ok(UdpSocket::bind((side.v4, 0))?));
        let (from, to) = (bind(&pair.a).unwrap(), bind(&pair.b).unwrap());
        setsockopt(&to, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        to.set_read_timeout(Some(PATIENCE)).unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();

        let mut n_lost = 0;
        for round in 0..ROUNDS {
            for i in 0..BURST {
                let mut datagram = [round; DATAGRAM];
                datagram[..2].copy_from_slice(&(i as u16).to_be_bytes());
                from.send(&datagram).unwrap();
            }
            // Of the last few nothing is dropped.
            let mut next = 0;
            while next < BURST {
                let mut datagram = [0; DATAGRAM];
                let n = to.recv(&mut datagram).unwrap_or_else(|error| {
                    panic!(
                        "{transport:?}, round {round}, datagram {next}: {error}; {:?}",
                        pair.a.node.status()
                    )
                });
                let number = usize::from(u16::from_be_bytes([datagram[0], datagram[1]]));
                assert_eq!((n, datagram[2]), (DATAGRAM, round), "{transport:?}");
                assert!(number >= next, "{transport:?}: {number} instead of {next}");
                n_lost += number - next;
                next = number + 1;
            }
        }

        // On a busy machine the burst takes long, so that it is none any more for CoDel.
        let n_aged = pair.a.node.status().unwrap().counter("tx_aged").unwrap();
        eprintln!("{transport:?}: {n_lost} lost");
        assert_eq!(n_lost as u64, n_aged, "{transport:?}");
        assert!(
            n_lost * 100 <= BURST * usize::from(ROUNDS),
            "{transport:?}: {n_lost} lost"
        );
    }
}

#[test]
fn a_rate_is_shown_kept_and_changed_by_a_reload() {
    const RATE: u32 = 200_000;
    let _machine = machine::shared();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), scratch()).unwrap();
    append(&pair.a.node, &format!("rate = {RATE}\n")).unwrap();
    pair.start_nodes().unwrap();
    let b = pair.b.node.peer_id().to_owned();
    let rate =
        |node: &Node| node.ask::<Value>(&["peers"]).unwrap()["peers"][0]["rate_bytes_per_second"].clone();
    assert_eq!(rate(&pair.a.node), RATE);
    assert_eq!(rate(&pair.b.node), Value::Null);
    let shown = text(
        Command::new(NODE)
            .args(["peers", &b, "--socket"])
            .arg(pair.a.node.socket()),
        PATIENCE,
    );
    assert!(shown.unwrap().contains("rate      at most 195.3 KiB/s"));

    let sent = |status: &Status| status.peer(&b).unwrap().tx_bytes;
    let limited = loaded(&[(&pair.a, &pair.b)], || {
        let (before, start) = (sent(&pair.a.node.status()?), Instant::now());
        // Twice what the rate allows at once.
        let enough = |status: &Status| sent(status) > before + u64::from(RATE);
        let (after, _) = pair
            .a
            .node
            .wait_for("a second's worth is sent", PATIENCE, enough)?;
        // The answers may have come from before and after this time, but no later.
        Ok((sent(&after) - before, start.elapsed()))
    });
    let (n_sent, within) = limited.unwrap();
    let allowed = f64::from(RATE) * within.as_secs_f64() + 64.0 * 1024.0;
    assert!(
        n_sent as f64 <= allowed,
        "{n_sent} bytes in {within:?}, {allowed} allowed"
    );

    let changed = reload_with(&pair.a.node, &pair.a.config).unwrap();

    assert_eq!(changed["peers_changed"], serde_json::json!([b]));
    assert_eq!(rate(&pair.a.node), Value::Null);
    let unlimited = loaded(&[(&pair.a, &pair.b)], || {
        let before = pair.a.node.status()?;
        let passed = |status: &Status| {
            let uptime = status.uptime_seconds - before.uptime_seconds;
            uptime > 0.5 && (sent(status) - sent(&before)) as f64 > 1.2 * f64::from(RATE) * uptime
        };
        pair.a.node.wait_for("more than the rate was", PATIENCE, passed)
    });
    unlimited.unwrap();
}

#[test]
fn packets_between_nodes_carry_the_configured_mark() {
    let _machine = machine::shared();
    for (transport, underlay) in [
        (Transport::Tcp, Underlay::V4),
        (Transport::Tcp, Underlay::V6),
        (Transport::Quic, Underlay::V4),
        (Transport::Quic, Underlay::V6),
    ] {
        let plan = PairPlan {
            transport,
            underlay,
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(Path::new(NODE), &plan, scratch()).unwrap();
        for side in [&pair.a, &pair.b] {
            let mut config = side.config.clone();
            config.sections += "\n[transport]\ndscp = 46\n";
            side.node.configure(&config).unwrap();
        }
        // TCP's handshake is the kernel's, and at the listener's side it has no mark.
        let (from, class, payload) = match (underlay, transport) {
            (Underlay::V4, Transport::Tcp) => ("192.0.2.1", "ip[1] & 0xfc", "tcp[13] & 8 != 0"),
            (Underlay::V4, Transport::Quic) => ("192.0.2.1", "ip[1] & 0xfc", "udp"),
            (Underlay::V6, Transport::Tcp) => ("2001:db8::1", "(ip6[0:2] & 0x0fc0) >> 4", "ip6[53] & 8 != 0"),
            (Underlay::V6, Transport::Quic) => ("2001:db8::1", "(ip6[0:2] & 0x0fc0) >> 4", "udp"),
        };
        let watch = |comparison: &str, n: u32| {
            let filter = format!("src host {from} and port 4001 and {payload} and {class} {comparison} 0xb8");
            Watch::start(&pair.b.host, &filter, n).unwrap()
        };
        let (marked, unmarked) = (watch("=", 10), watch("!=", 1));

        pair.start_nodes().unwrap();

        assert_eq!(PingPlan::new(pair.b.v4).run(&pair.a.host).unwrap().n_lost(), 0);
        marked
            .wait_for_all()
            .unwrap_or_else(|error| panic!("{transport:?}, {underlay:?}: {error:#}"));
        assert!(
            unmarked.has_seen_nothing().unwrap(),
            "{transport:?}, {underlay:?}"
        );
    }
}

fn scratch() -> ScratchDir {
    ScratchDir::unique("links").expect("a directory")
}

/// Adds to the last section of a configuration, which is the peer's.
fn append(node: &Node, text: &str) -> Result<()> {
    let before = fs::read_to_string(node.config())?;
    Ok(fs::write(node.config(), before + text)?)
}

/// A link of 1 Mbit/s that gets three times as much, with little room in the middle.
fn bounds_what_waits_below_the_outbox(transport: Transport) {
    const MIDDLE_BYTES: u32 = 32 * 1024;
    // What the kernel or the connection holds beside it, sent or not, and a portion that is being written.
    const MOST_BYTES: u64 = MIDDLE_BYTES as u64 + 96 * 1024;
    let link = SlowLink::start(&LinkPlan {
        kbit: 1000,
        buffer_bytes: MIDDLE_BYTES,
        transport,
    })
    .expect("the pair starts");
    let pair = &link.pair;

    let (pings, below) = loaded(&[(&pair.a, &pair.b)], || {
        let dropped = |status: &Status| status.counter("tx_aged").is_ok_and(|n| n > 100);
        pair.a
            .node
            .wait_for("CoDel drops what waited for too long", PATIENCE, dropped)?;
        let ping = PingPlan {
            count: 20,
            patience: PATIENCE,
            ..PingPlan::new(pair.b.v4)
        };
        let pings = ping.run(&pair.a.host)?;
        let below = (0..20)
            .map(|_| below_the_outbox(pair))
            .collect::<Result<Vec<_>>>()?;
        Ok((pings, below))
    })
    .expect("the link carries what is sent");

    eprintln!("{transport:?}: {:?} ms, {below:?} bytes", pings.rtts_ms);
    assert_eq!(pings.n_lost(), 0);
    assert!(below.iter().all(|n| *n <= MOST_BYTES), "{below:?}");
    assert_eq!(disconnects(pair).expect("the logs"), 0);
}

/// Returns how many bytes were written to streams and have not arrived, or fewer.
fn below_the_outbox(pair: &Pair) -> Result<u64> {
    let sent = pair.a.node.status()?.peer(pair.b.node.peer_id())?.tx_bytes;
    let received = pair.b.node.status()?.peer(pair.a.node.peer_id())?.rx_bytes;
    Ok(sent.saturating_sub(received))
}

fn keeps_a_busy_connection(transport: Transport) {
    let link = SlowLink::start(&LinkPlan {
        kbit: 256,
        buffer_bytes: 1024 * 1024,
        transport,
    })
    .expect("the pair starts");
    let pair = &link.pair;

    let before = loaded(&[(&pair.a, &pair.b), (&pair.b, &pair.a)], || {
        let wait_for = |n_bytes: u64| {
            for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
                let id = from.node.peer_id();
                let arrived = |status: &Status| status.peer(id).is_ok_and(|peer| peer.rx_bytes > n_bytes);
                to.node.wait_for("bytes arrive", 4 * PATIENCE, arrived)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        // Nobody knows how long a round trip is until the queues of the link are as long as they get: until then the peers may
        // connect anew.
        wait_for(250_000)?;
        let before = disconnects(pair)?;
        // More than a buffer that is never full takes, so that pings had to pass it for many times their limit.
        wait_for(850_000)?;
        Ok(before)
    })
    .expect("the link carries what is sent");

    assert_eq!(disconnects(pair).expect("the logs"), before);
}

/// Returns how many connections were given up. The side that does so says why; that a peer has closed one is also said of
/// dials that were one too many.
fn disconnects(pair: &Pair) -> Result<usize> {
    let logs = [pair.a.node.log()?, pair.b.node.log()?];
    let lines = logs.iter().flat_map(|log| log.lines());
    // Over TCP and over QUIC.
    let by_peer = ["the peer closed the connection", "closed by peer"];
    let given_up = |line: &&str| line.contains("disconnected") && !by_peer.iter().any(|by| line.contains(by));
    Ok(lines.filter(given_up).count())
}

/// A look at packets of a link, with tcpdump.
struct Watch {
    tcpdump: Child,
}

impl Watch {
    /// Starts to look for `n` packets.
    fn start(host: &xtask::lab::Namespace, filter: &str, n: u32) -> Result<Self> {
        use std::io::{BufRead, BufReader};

        let mut tcpdump = host
            .command("tcpdump")
            .args([
                "-n",
                "-q",
                "-i",
                "u0",
                "-c",
                &n.to_string(),
                "-w",
                "/dev/null",
                filter,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tcpdump")?;
        let printed = BufReader::new(tcpdump.stderr.take().context("its messages are a pipe")?);
        let mut lines = printed.lines();
        let listens = lines.any(|line| line.is_ok_and(|line| line.contains("listening on")));
        ensure!(listens, "tcpdump does not understand {filter}");
        // It goes on printing, and nobody has to read it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { tcpdump })
    }

    fn wait_for_all(mut self) -> Result<()> {
        let ended = wait(&mut self.tcpdump, PATIENCE)?;
        ensure!(ended.success(), "tcpdump: {ended}");
        Ok(())
    }

    fn has_seen_nothing(mut self) -> Result<bool> {
        if self.tcpdump.try_wait()?.is_some() {
            return Ok(false);
        }
        signal(&self.tcpdump, Signal::SIGTERM)?;
        wait(&mut self.tcpdump, PATIENCE)?;
        Ok(true)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(None) = self.tcpdump.try_wait() {
            let ended =
                signal(&self.tcpdump, Signal::SIGKILL).and_then(|()| wait(&mut self.tcpdump, PATIENCE));
            if let Err(error) = ended {
                eprintln!("cannot stop tcpdump: {error:#}");
            }
        }
    }
}
