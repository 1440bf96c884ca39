//! Several uplinks: connections by each, flows that move when one is gone, and one that is used in need alone.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::packets::wait_for_packets;
use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, UdpPlan, datagrams};
use xtask::lab::process::{text, until};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Transport, link};

const LIMIT: Duration = Duration::from_secs(60);

const DEVICES: [&str; 2] = ["u0", "u1"];

/// Many flows, so that there are some on every lane.
const FLOWS: UdpPlan = UdpPlan {
    n_flows: 100,
    short_len: 100,
    rate: 2000,
};

/// Bytes of a device that somebody uses; pings of idle connections are fewer.
const USED: u64 = 100_000;

/// Bytes that the kernel has for a device of its own, such as those by which it finds routers.
const OF_THE_KERNEL: u64 = 2000;

/// How the nodes are joined.
#[derive(Clone, Copy)]
struct Way {
    transport: Transport,
    is_v6: bool,
}

const WAYS: [Way; 3] = [
    Way {
        transport: Transport::Tcp,
        is_v6: false,
    },
    Way {
        transport: Transport::Quic,
        is_v6: false,
    },
    Way {
        transport: Transport::Tcp,
        is_v6: true,
    },
];

impl Way {
    /// Returns the address of a host on an uplink.
    fn address(self, uplink: usize, host: usize) -> String {
        match self.is_v6 {
            false => format!("192.0.2.{}", 128 * uplink + host),
            true => format!("2001:db8:{uplink}::{host}"),
        }
    }

    fn multiaddr(self, uplink: usize, host: usize) -> String {
        let (address, family) = (self.address(uplink, host), if self.is_v6 { "ip6" } else { "ip4" });
        match self.transport {
            Transport::Tcp => format!("/{family}/{address}/tcp/4001"),
            Transport::Quic => format!("/{family}/{address}/udp/4001/quic-v1"),
        }
    }
}

/// Makes two hosts with two cables between them. Only the first dials, by uplinks of which `sections` tells; the second knows of none.
fn prepare(way: Way, sections: &str) -> Result<Pair> {
    let plan = PairPlan {
        transport: way.transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("uplinks")?)?;
    let (a, b) = (&pair.a.host, &pair.b.host);
    a.ip(&["link", "delete", "u0"])?;
    for (uplink, device) in DEVICES.iter().enumerate() {
        let length = if way.is_v6 { 64 } else { 25 };
        let [at_a, at_b] = [1, 2].map(|host| format!("{}/{length}", way.address(uplink, host)));
        link((a, device, &[&at_a]), (b, device, &[&at_b]))?;
    }
    if way.is_v6 {
        pair.b.config.listen = vec![way.multiaddr(0, 2).replace("2001:db8:0::2", "::")];
    }
    pair.a.config.listen.clear();
    pair.a.config.sections = sections.to_owned();
    let peer = pair.a.config.peers.first_mut().context("the second is a peer")?;
    peer.addresses = [0, 1].map(|uplink| way.multiaddr(uplink, 2)).to_vec();
    let peer = pair.b.config.peers.first_mut().context("the first is a peer")?;
    peer.addresses.clear();
    for side in [&pair.a, &pair.b] {
        side.node.configure(&side.config)?;
    }
    Ok(pair)
}

fn by_devices(of_second: &str) -> String {
    format!("\n[[transport.uplink]]\ndevice = \"u0\"\n\n[[transport.uplink]]\ndevice = \"u1\"\n{of_second}\n")
}

fn start(way: Way, sections: &str) -> Result<Pair> {
    let mut pair = prepare(way, sections)?;
    pair.start_nodes()?;
    wait_for_packets(&pair)?;
    Ok(pair)
}

/// The uplinks of the connections of the first node's peer on which the peer answers, in order.
fn uplinks(pair: &Pair) -> Result<Vec<String>> {
    let list: Value = pair.a.node.ask(&["peers"])?;
    let links = list["peers"][0]["links"].as_array().context("there are links")?;
    let standing = links
        .iter()
        .filter(|link| link["answers"] == true && link["leaving"] == false);
    let mut uplinks: Vec<_> = standing
        .map(|link| link["uplink"].as_str().unwrap_or("none").to_owned())
        .collect();
    uplinks.sort();
    Ok(uplinks)
}

fn wait_for_uplinks(pair: &Pair, expected: &[&str]) -> Result<()> {
    let mut last = Vec::new();
    until("connections by these uplinks", LIMIT, || {
        last = uplinks(pair)?;
        Ok((last == expected).then_some(()))
    })
    .with_context(|| format!("{expected:?}, and not {last:?}"))?;
    Ok(())
}

/// Waits until a node gives its peer so many streams.
fn wait_for_streams(pair: &Pair, n_active: usize) -> Result<()> {
    for side in [&pair.a, &pair.b] {
        until("streams for the uplinks", LIMIT, || {
            let list: Value = side.node.ask(&["streams"])?;
            let streams = list["streams"].as_array().context("there are streams")?;
            let active = streams.iter().filter(|stream| stream["state"] == "active");
            Ok((active.count() == n_active).then_some(()))
        })?;
    }
    Ok(())
}

/// Bytes that a host has sent by a device.
fn sent(host: &Namespace, device: &str) -> Result<u64> {
    let shown = host.ip(&["-s", "-j", "link", "show", "dev", device])?;
    let shown: Value = serde_json::from_str(&shown)?;
    shown[0]["stats64"]["tx"]["bytes"]
        .as_u64()
        .context("bytes are counted")
}

/// Waits until dials have ended that began while the peer's node was still starting. Returns what was sent by then.
fn wait_until_unused(host: &Namespace, device: &str) -> Result<u64> {
    let (unused, _) = until("nothing more is sent", LIMIT, || {
        let before = sent(host, device)?;
        std::thread::sleep(Duration::from_secs(6));
        let after = sent(host, device)?;
        Ok((after - before < OF_THE_KERNEL / 2).then_some(after))
    })?;
    Ok(unused)
}

/// How many bytes each host has sent by each device while flows went to the other.
fn spread(pair: &Pair, during: impl Fn() -> Result<()>) -> Result<[[u64; 2]; 2]> {
    let hosts = [&pair.a.host, &pair.b.host];
    let read = || -> Result<Vec<u64>> {
        let all = hosts
            .iter()
            .flat_map(|host| DEVICES.map(|device| sent(host, device)));
        all.collect()
    };
    let before = read()?;
    let ends: [((&Namespace, &Namespace), IpAddr); 2] = [
        ((hosts[0], hosts[1]), pair.b.v4),
        ((hosts[1], hosts[0]), pair.a.v4),
    ];
    for (hosts, at) in ends {
        let mut changed = Ok(());
        let tally = datagrams(FLOWS, hosts, at, || {
            std::thread::sleep(Duration::from_secs(1));
            changed = during();
            std::thread::sleep(Duration::from_secs(2));
        })?;
        changed?;
        eprintln!("to {at}: {tally}");
        assert!(tally.n_flows > 0 && tally.n_sent > 1000, "{tally}");
        let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
        assert_eq!(faults, (0, 0, 0), "{tally}");
    }
    let after = read()?;
    let bytes: Vec<_> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    eprintln!("bytes by {DEVICES:?}: {bytes:?}");
    Ok([[bytes[0], bytes[1]], [bytes[2], bytes[3]]])
}

fn nothing() -> Result<()> {
    Ok(())
}

#[test]
fn flows_are_spread_over_the_uplinks_in_both_directions() {
    let _machine = machine::shared();
    for way in WAYS {
        let pair = start(way, &by_devices("")).unwrap();
        wait_for_uplinks(&pair, &DEVICES).unwrap();
        wait_for_streams(&pair, 2).unwrap();

        let bytes = spread(&pair, nothing).unwrap();

        assert!(bytes.iter().flatten().all(|bytes| *bytes > USED), "{bytes:?}");
        let pings = PingPlan::new(pair.b.v6).run(&pair.a.host).unwrap();
        assert_eq!(pings.n_lost(), 0);
    }
}

#[test]
fn an_uplink_may_be_named_by_its_address_and_has_the_share_of_its_weight() {
    let _machine = machine::shared();
    let sections = "\n[[transport.uplink]]\nsource = \"192.0.2.1\"\n\n\
                    [[transport.uplink]]\nsource = \"192.0.2.129\"\nweight = 3\n";
    let mut pair = prepare(WAYS[0], sections).unwrap();
    let host = &pair.a.host;
    // Each is to leave by its own device, whichever of the peer's addresses it leads to.
    for (uplink, table) in ["101", "102"].into_iter().enumerate() {
        let (device, source) = (DEVICES[uplink], WAYS[0].address(uplink, 1));
        host.ip(&["route", "add", "default", "dev", device, "table", table])
            .unwrap();
        host.ip(&["rule", "add", "from", &source, "lookup", table])
            .unwrap();
    }
    pair.start_nodes().unwrap();
    wait_for_packets(&pair).unwrap();
    wait_for_uplinks(&pair, &["192.0.2.1", "192.0.2.129"]).unwrap();
    // The other node knows of no weights.
    until("a stream for each part", LIMIT, || {
        let list: Value = pair.a.node.ask(&["streams"])?;
        let n_streams = list["streams"].as_array().map(Vec::len);
        Ok((n_streams == Some(4)).then_some(()))
    })
    .unwrap();

    let [own, _] = spread(&pair, nothing).unwrap();

    assert!(own[0] > USED && own[1] > 2 * own[0], "{own:?}");
}

/// Has an uplink end as `end` says, and come back, while flows go on.
fn flows_move(way: Way, end: &[&[&str]], back: &[&[&str]]) -> Result<()> {
    let pair = start(way, &by_devices(""))?;
    let change = |commands: &[&[&str]]| {
        for command in commands {
            let (program, arguments) = command.split_first().context("a command")?;
            text(pair.a.host.command(program).args(arguments), LIMIT)?;
        }
        Ok(())
    };
    for (gone, stays) in [("u1", "u0"), ("u0", "u1")] {
        wait_for_uplinks(&pair, &DEVICES)?;
        wait_for_streams(&pair, 2)?;
        let named = |commands: &[&[&str]]| {
            let replaced = commands.iter().map(|command| {
                let words = command.iter().map(|word| word.replace("DEVICE", gone));
                words.collect::<Vec<_>>()
            });
            replaced.collect::<Vec<_>>()
        };
        let run = |commands: &[&[&str]]| {
            let named = named(commands);
            let named: Vec<Vec<&str>> = named
                .iter()
                .map(|command| command.iter().map(String::as_str).collect())
                .collect();
            change(&named.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };

        spread(&pair, || run(end))?;

        wait_for_uplinks(&pair, &[stays])?;
        let bytes = spread(&pair, nothing)?;
        let at = DEVICES.iter().position(|device| *device == stays);
        let at = at.context("one of both stays")?;
        assert!(bytes.iter().all(|bytes| bytes[at] > 2 * USED), "{bytes:?}");
        run(back)?;
    }
    wait_for_uplinks(&pair, &DEVICES)?;
    wait_for_streams(&pair, 2)?;
    let bytes = spread(&pair, nothing)?;
    assert!(bytes.iter().flatten().all(|bytes| *bytes > USED), "{bytes:?}");
    Ok(())
}

#[test]
fn flows_of_a_device_that_goes_down_go_on_by_the_other_and_are_spread_again_when_it_is_back() {
    let _machine = machine::shared();
    for way in &WAYS[..2] {
        flows_move(
            *way,
            &[&["ip", "link", "set", "DEVICE", "down"]],
            &[&["ip", "link", "set", "DEVICE", "up"]],
        )
        .unwrap();
    }
}

#[test]
fn flows_of_an_uplink_that_swallows_packets_go_on_by_the_other() {
    let _machine = machine::shared();
    let hole = "table inet hole { chain input { type filter hook input priority 0; iifname DEVICE drop; }; \
                chain output { type filter hook output priority 0; oifname DEVICE drop; }; }";
    for way in &WAYS[..2] {
        flows_move(*way, &[&["nft", hole]], &[&["nft", "delete table inet hole"]]).unwrap();
    }
}

#[test]
fn a_connection_over_multipath_tcp_goes_on_by_its_other_path() {
    let _machine = machine::shared();
    for way in [WAYS[0], WAYS[2]] {
        let multipath = "\n[transport]\nmptcp = true\n";
        let mut pair = prepare(way, multipath).unwrap();
        pair.b.config.sections = multipath.to_owned();
        // Nothing but the kernel finds the other path.
        pair.a.config.peers[0].addresses.truncate(1);
        for (number, side, kind) in [(1, &pair.a, "subflow"), (2, &pair.b, "signal")] {
            side.node.configure(&side.config).unwrap();
            let limits = ["mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"];
            side.host.ip(&limits).unwrap();
            let address = way.address(1, number);
            side.host
                .ip(&["mptcp", "endpoint", "add", &address, "dev", "u1", kind])
                .unwrap();
        }
        pair.start_nodes().unwrap();
        wait_for_packets(&pair).unwrap();
        until("a second path", LIMIT, || {
            let shown = text(
                pair.a.host.command("ss").args(["-tnH", "state", "established"]),
                LIMIT,
            )?;
            Ok(shown.contains(&way.address(1, 2)).then_some(()))
        })
        .unwrap();

        spread(&pair, || {
            let hole = "table inet hole { chain input { type filter hook input priority 0; iifname u0 drop; }; \
                        chain output { type filter hook output priority 0; oifname u0 drop; }; }";
            text(pair.a.host.command("nft").arg(hole), LIMIT)?;
            Ok(())
        })
        .unwrap();

        let bytes = spread(&pair, nothing).unwrap();
        assert!(bytes.iter().all(|bytes| bytes[1] > USED), "{bytes:?}");
        assert_eq!(uplinks(&pair).unwrap(), ["none"]);
        for side in [&pair.a, &pair.b] {
            let log = side.node.log().unwrap();
            assert!(!log.contains("disconnected"), "{log}");
        }
    }
}

#[test]
fn a_metered_uplink_carries_nothing_until_the_others_are_gone_and_is_left_when_they_are_back() {
    let _machine = machine::shared();
    for way in &WAYS[..2] {
        let pair = start(*way, &by_devices("metered = true")).unwrap();
        wait_for_uplinks(&pair, &["u0"]).unwrap();
        let unused = wait_until_unused(&pair.a.host, "u1").unwrap();
        let bytes = spread(&pair, nothing).unwrap();
        assert!(bytes.iter().all(|bytes| bytes[0] > USED), "{bytes:?}");
        let n_more = sent(&pair.a.host, "u1").unwrap() - unused;
        assert!(n_more < OF_THE_KERNEL, "{n_more} bytes by the metered uplink");

        pair.a.host.ip(&["link", "set", "u0", "down"]).unwrap();
        wait_for_uplinks(&pair, &["u1"]).unwrap();
        let bytes = spread(&pair, nothing).unwrap();
        assert!(bytes.iter().all(|bytes| bytes[1] > USED), "{bytes:?}");

        pair.a.host.ip(&["link", "set", "u0", "up"]).unwrap();
        wait_for_uplinks(&pair, &["u0"]).unwrap();
        let bytes = spread(&pair, nothing).unwrap();
        assert!(
            bytes.iter().all(|bytes| bytes[0] > USED && bytes[1] < USED / 2),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_device_that_comes_later_is_taken_when_it_comes() {
    let _machine = machine::shared();
    let mut pair = prepare(WAYS[0], &by_devices("")).unwrap();
    pair.a.host.ip(&["link", "set", "u1", "down"]).unwrap();
    pair.a.host.ip(&["link", "set", "u1", "name", "later"]).unwrap();
    pair.start_nodes().unwrap();
    wait_for_packets(&pair).unwrap();
    until("the device is missed", LIMIT, || {
        let is_said = pair
            .a
            .node
            .log()?
            .contains("the device u1 of an uplink is not there");
        Ok(is_said.then_some(()))
    })
    .unwrap();
    wait_for_uplinks(&pair, &["u0"]).unwrap();

    pair.a.host.ip(&["link", "set", "later", "name", "u1"]).unwrap();
    pair.a.host.ip(&["link", "set", "u1", "up"]).unwrap();

    wait_for_uplinks(&pair, &DEVICES).unwrap();
}

/// The share of loss on the connection by each uplink, as the first node shows it.
fn losses(pair: &Pair) -> Result<[Option<f64>; 2]> {
    let list: Value = pair.a.node.ask(&["peers"])?;
    let links = list["peers"][0]["links"].as_array().context("there are links")?;
    let of = |device: &str| links.iter().find(|link| link["uplink"] == device)?["loss"].as_f64();
    Ok(DEVICES.map(of))
}

#[test]
fn the_uplink_that_loses_packets_is_told_from_the_other() {
    let _machine = machine::shared();
    for way in &WAYS[..2] {
        let pair = start(*way, &by_devices("")).unwrap();
        wait_for_uplinks(&pair, &DEVICES).unwrap();
        wait_for_streams(&pair, 2).unwrap();
        let rules = "table inet lossy { chain input { type filter hook input priority 0; \
                     iifname u1 numgen random mod 100 < 5 drop; }; }";
        text(pair.b.host.command("nft").arg(rules), LIMIT).unwrap();

        let mut seen = [None; 2];
        datagrams(FLOWS, (&pair.a.host, &pair.b.host), pair.b.v4, || {
            // At first one packet that was sent twice, as on a busy machine, is a large share.
            until("the losses of one are those of its link", 2 * LIMIT, || {
                seen = losses(&pair)?;
                let are_told = |clean: f64, lossy: f64| lossy > 0.01 && lossy < 0.5 && clean < lossy / 2.0;
                Ok(matches!(seen, [Some(clean), Some(lossy)] if are_told(clean, lossy)).then_some(()))
            })
            .with_context(|| format!("{seen:?}"))
            .unwrap();
        })
        .unwrap();

        let mut peers = std::process::Command::new(NODE);
        peers.args(["peers", "-v", "--socket"]).arg(pair.a.node.socket());
        let shown = text(&mut peers, LIMIT).unwrap();
        assert_eq!(shown.matches(" % lost").count(), 2, "{shown}");
    }
}
