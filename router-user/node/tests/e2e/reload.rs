//! Another configuration for a running node: peers and prefixes that come, go and change hands beside the traffic of a
//! peer that stays; limits and log level; and files that a node does not take.

mod alone;
pub(crate) mod ask;
mod third;

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::lan::{Lan, LanPlan};
use crate::support::{NODE, machine};
use alone::{Alone, state};
use ask::{hang_up, prefix_table, reload, reload_with, wait_logged};
use third::Third;
use xtask::lab::probe::Gate;
use xtask::lab::probe::Tally;
use xtask::lab::probe::UdpPlan;
use xtask::lab::probe::answers;
use xtask::lab::probe::datagrams;
use xtask::lab::process::until;
use xtask::lab::{Namespace, NodeConfig, Pair, Side, Status};

const LIMIT: Duration = Duration::from_secs(20);
const GENTLE: UdpPlan = UdpPlan {
    n_flows: 60,
    short_len: 20,
    rate: 2000,
};
/// Behind the third node, and then behind the second.
const MOVED: &str = "10.50.0.1";
const MOVED_PORT: u16 = 7500;

fn wait_answer(from: &Namespace, to: &str) -> Result<()> {
    let to: IpAddr = to.parse()?;
    let what = format!("an answer of {to}");
    until(&what, LIMIT, || {
        Ok(answers(from, to, Duration::from_millis(500))?.then_some(()))
    })?;
    Ok(())
}

fn counter(side: &Side, name: &str) -> Result<u64> {
    side.node.status()?.counter(name)
}

/// The peers of the live flows to [`MOVED`] of this source port.
fn peers_of_flow(side: &Side, source_port: u16) -> Result<Vec<Value>> {
    let flows: Value = side
        .node
        .ask(&["flows", "--address", MOVED, "--protocol", "udp"])?;
    let flows = flows["flows"].as_array().context("a list")?.iter();
    let of_port = flows.filter(|flow| flow["source_port"] == json!(source_port));
    Ok(of_port.map(|flow| flow["peer"].clone()).collect())
}

/// A socket of `host` that hears what is sent to [`MOVED`].
fn moved_end(host: &Namespace) -> Result<UdpSocket> {
    host.ip(&["address", "add", &format!("{MOVED}/32"), "dev", "lo"])?;
    let socket = host.enter(|| Ok(UdpSocket::bind((MOVED, MOVED_PORT))?))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// Sends `what` until `end` hears it; the first packets may come before the node has a connection.
fn wait_heard(sender: &UdpSocket, end: &UdpSocket, what: &[u8]) -> Result<()> {
    until("a datagram arrives", LIMIT, || {
        // What cannot be sent now, such as without a route, may be later.
        let _refused = sender.send(what);
        let mut heard = [0; 64];
        Ok(match end.recv(&mut heard) {
            Ok(len) if &heard[..len] == what => Some(()),
            _ => None,
        })
    })?;
    Ok(())
}

/// Says whether `end` has heard anything that it was not asked for yet.
fn heard_nothing(end: &UdpSocket) -> bool {
    end.recv(&mut [0; 64]).is_err()
}

#[test]
fn peers_and_prefixes_come_go_and_move_beside_traffic_that_loses_and_reorders_nothing() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).expect("a pair");
    let third = Third::start(&pair).expect("a third node");
    let done = Gate::default();
    let until_done = || done.wait();
    let (a, b) = ((&pair.a.host, pair.a.v4), (&pair.b.host, pair.b.v4));

    let tallies: Vec<Tally> = thread::scope(|scope| {
        let there = scope.spawn(|| datagrams(GENTLE, (a.0, b.0), b.1, until_done));
        let back = scope.spawn(|| datagrams(GENTLE, (b.0, a.0), a.1, until_done));
        let stop = done.open_on_drop();
        change_everything(&pair, &third).expect("the node takes every change");
        drop(stop);
        let runs = [there, back].map(|run| run.join().expect("no panic"));
        runs.into_iter()
            .map(|tally| tally.expect("datagrams can be sent"))
            .collect()
    });

    let refused = ["peer_pressure", "ring_full", "tx_queue_full", "tx_aged"];
    let refused = [&pair.a, &pair.b].map(|side| refused.map(|name| counter(side, name).expect("it counts")));
    let n_refused = refused.as_flattened().iter().sum::<u64>();
    for tally in tallies {
        eprintln!("{tally}; {n_refused} refused");
        // A machine that stalls fills the queues for a moment; what they refuse is counted.
        assert!(
            tally.n_sent > 1000 && tally.n_lost <= n_refused,
            "{tally}; {n_refused} refused"
        );
        let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
        assert_eq!(faults, (0, 0, 0), "{tally}");
    }
}

fn change_everything(pair: &Pair, third: &Third) -> Result<()> {
    let (a, id_b, id_c) = (&pair.a, pair.b.node.peer_id(), third.node.peer_id());
    // Flows are remembered for as long as this takes.
    let mut alone = a.config.clone();
    alone.sections = "[connections]\nttl = \"10m\"\n".to_owned();
    let first = reload_with(&a.node, &alone)?;
    assert_eq!(first["applied"], json!(["connections.ttl"]));
    let unchanged = reload_with(&a.node, &alone)?;
    assert_eq!(
        unchanged,
        json!({
            "file": a.node.config(), "peers_added": [], "peers_removed": [], "peers_changed": [],
            "peer_names": [],
            "applied": [], "needs_restart": [], "notes": [],
        })
    );

    // A peer comes, with an address that is the second one's later.
    let mut with_c = alone.clone();
    with_c.peers.insert(0, third.as_peer.clone());
    with_c.peers[0].allowed_ips.push(format!("{MOVED}/32"));
    let added = reload_with(&a.node, &with_c)?;
    assert_eq!(
        (&added["peers_added"], &added["peers_changed"]),
        (&json!([id_c]), &json!([]))
    );
    a.node.wait_connected(&third.node, LIMIT)?;
    wait_answer(&a.host, "10.42.0.3")?;
    wait_answer(&third.host, "fd42::1")?;
    let (end_c, end_b) = (moved_end(&third.host)?, moved_end(&pair.b.host)?);
    let sender = a.host.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    a.host.enter(|| Ok(sender.connect((MOVED, MOVED_PORT))?))?;
    let port = sender.local_addr()?.port();
    wait_heard(&sender, &end_c, b"first")?;
    assert_eq!(peers_of_flow(a, port)?, [json!(id_c)]);

    // The address moves, and the flow to it with it.
    let mut moved = alone.clone();
    moved.peers.insert(0, third.as_peer.clone());
    moved.peers[1].allowed_ips.push(format!("{MOVED}/32"));
    let answer = reload_with(&a.node, &moved)?;
    assert_eq!(answer["peers_changed"], json!([id_c, id_b]));
    assert_eq!(
        peers_of_flow(a, port)?,
        [json!(id_b)],
        "as its next packet will find it"
    );
    while !heard_nothing(&end_c) {}
    wait_heard(&sender, &end_b, b"second")?;
    assert!(heard_nothing(&end_c));
    assert_eq!(peers_of_flow(a, port)?, [json!(id_b)]);
    // Its old peer may not send from it any more.
    let at_a = SocketAddr::new(a.v4, MOVED_PORT);
    let end_a = a.host.enter(|| Ok(UdpSocket::bind(at_a)?))?;
    end_a.set_read_timeout(Some(Duration::from_millis(200)))?;
    let refused = counter(a, "rx_source_not_allowed")?;
    end_c.send_to(b"forged", at_a)?;
    until("the forged packet is counted", LIMIT, || {
        Ok((counter(a, "rx_source_not_allowed")? > refused).then_some(()))
    })?;
    assert!(heard_nothing(&end_a));
    let mut heard = [0; 64];
    end_b.send_to(b"honest", at_a)?;
    let len = until("the honest packet arrives", LIMIT, || {
        Ok(end_a.recv(&mut heard).ok())
    })?
    .0;
    assert_eq!(&heard[..len], b"honest");

    // Back and forth, as fast as it goes.
    for with in [&with_c, &moved, &with_c, &moved, &with_c, &moved] {
        assert_eq!(
            reload_with(&a.node, with)?["peers_changed"]
                .as_array()
                .map(Vec::len),
            Some(2)
        );
    }
    wait_heard(&sender, &end_b, b"still second")?;

    // A peer goes: its connection, its prefixes, its packets. The address that moved goes too.
    a.node.configure(&alone)?;
    let logged = a.node.log()?.len();
    hang_up(&a.node)?;
    wait_logged(&a.node, logged, "the configuration was read again")?;
    let status = a.node.status()?;
    assert_eq!(ids(&status), [id_b]);
    third.node.wait_for("the connection is closed", LIMIT, |status| {
        !status.is_connected(a.node.peer_id())
    })?;
    let no_route = counter(a, "tx_no_route")?;
    assert!(!answers(
        &a.host,
        "10.42.0.3".parse()?,
        Duration::from_millis(300)
    )?);
    assert!(counter(a, "tx_no_route")? > no_route);
    let routes = a.host.ip(&["route", "show", "dev", &a.config.device])?;
    assert!(
        !routes.contains("10.42.0.3") && !routes.contains(MOVED),
        "{routes}"
    );
    let pinned: Value = serde_json::from_str(&prefix_table(&a.node)?)?;
    assert_eq!(pinned["routes"].as_array().map(Vec::len), Some(2), "{pinned}");

    // And comes back.
    let back = reload_with(&a.node, &with_c)?;
    assert_eq!(back["peers_added"], json!([id_c]));
    a.node.wait_connected(&third.node, LIMIT)?;
    wait_answer(&a.host, "10.42.0.3")?;
    wait_heard(&sender, &end_c, b"third")?;
    assert_eq!(peers_of_flow(a, port)?, [json!(id_c)]);

    for line in third.node.log()?.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    Ok(())
}

fn ids(status: &Status) -> Vec<&str> {
    status.peers.iter().map(|peer| peer.id.as_str()).collect()
}

#[test]
fn a_peer_that_becomes_the_default_route_of_a_gateway_takes_nothing_of_the_hosts_own() {
    let _machine = machine::shared();
    let lan = Lan::start(&LanPlan::default()).unwrap();
    let (a, gateway) = (&lan.pair.a, IpAddr::from([192, 168, 77, 1]));
    let before = prefix_table(&a.node).unwrap();
    assert!(!before.contains("\"host\""), "{before}");
    let reaches_all = || -> Result<bool> {
        let answered = |from, to| answers(from, to, Duration::from_secs(1));
        let [behind, _] = lan.addresses();
        Ok(answered(&lan.host, gateway)?
            && answered(&lan.host, lan.pair.b.v4)?
            && answered(&lan.pair.b.host, behind)?)
    };
    assert!(reaches_all().unwrap());

    let mut wide = a.config.clone();
    wide.peers[0].allowed_ips = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    reload_with(&a.node, &wide).unwrap();

    let table = prefix_table(&a.node).unwrap();
    for own in ["192.168.77.0/24", "192.0.2.0/24", "fd77::/64"] {
        let entry = format!(
            "\"prefix\": \"{own}\",\n      \"peer\": null,\n      \"peer_name\": null,\n      \"source\": \"host\""
        );
        assert!(table.contains(&entry), "{own}: {table}");
    }
    assert!(reaches_all().unwrap());
    let status = a.node.status().unwrap();
    assert!(status.is_connected(lan.pair.b.node.peer_id()));

    reload_with(&a.node, &a.config).unwrap();
    assert_eq!(prefix_table(&a.node).unwrap(), before);
    assert!(reaches_all().unwrap());
}

#[test]
fn limits_and_log_level_are_taken_at_once_and_what_needs_a_restart_is_named() {
    let _machine = machine::shared();
    let alone = Alone::start("").unwrap();
    alone.wait_workers(8).unwrap();

    let limits = "[workers]\nmin = 2\nmax = 3\n[streams]\nmin_per_peer = 12\nmax_per_peer = 14\n[connections]\nttl = \
                  \"7s\"\n";
    let answer = alone.reload_with(limits).unwrap();
    let applied = [
        "workers.min",
        "workers.max",
        "connections.ttl",
        "streams.min_per_peer",
        "streams.max_per_peer",
    ];
    assert_eq!(
        (&answer["applied"], &answer["needs_restart"]),
        (&json!(applied), &json!([]))
    );
    alone.wait_workers(3).unwrap();
    until("more streams", LIMIT, || {
        Ok((alone.n_streams()? == 12).then_some(()))
    })
    .unwrap();

    let debugging = [limits, "[log]\nlevel = \"info,stream_router=debug\"\n"].concat();
    let logged = alone.node.log().unwrap().len();
    assert_eq!(
        alone.reload_with(&debugging).unwrap()["applied"],
        json!(["log.level"])
    );
    // Workers come and go at DEBUG.
    alone
        .reload_with(&debugging.replace("min = 2\nmax = 3", "min = 4\nmax = 4"))
        .unwrap();
    wait_logged(&alone.node, logged, "DEBUG").unwrap();

    let started = "[workers]\nqueue_size = 500\n[connections]\nttl = \"8s\"\nshards = 7\n[[gateway]]\ninterface = \
                   \"lan0\"\n[log]\nformat = \"json\"\n";
    for _twice in 0..2 {
        let answer = alone.reload_with(started).unwrap();
        let restart = [
            "log.format",
            "gateway",
            "connections.shards",
            "workers.queue_size",
        ];
        assert_eq!(answer["needs_restart"], json!(restart));
    }
    let shown = reload(&alone.node, &[]).unwrap();
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap(),
        "needs a restart: log.format, gateway, connections.shards, workers.queue_size\n"
    );
    assert!(
        alone
            .node
            .log()
            .unwrap()
            .contains("without effect until the node is restarted")
    );
}

#[test]
fn a_file_that_is_wrong_or_cannot_be_taken_changes_nothing() {
    let _machine = machine::shared();
    let mut alone = Alone::start("[log]\nformat = \"journald\"\n").unwrap();
    let before = state(&alone).unwrap();
    let begun = alone.node.log().unwrap();
    let span = format!("<6>node{{peer_id={}}}: ", alone.node.peer_id());
    let of_ours = |line: &str| {
        let target = line.strip_prefix(&span).unwrap_or_default();
        target.starts_with("stream_router::") || target.starts_with("stream_router_node::")
    };
    assert!(begun.lines().all(of_ours), "{begun}");
    let file = alone.node.config();
    let right = fs::read_to_string(&file).unwrap();
    let wrong = right.replace("mtu = 1420", "mtu = 5\nspeed = 1") + "[workers]\nmin = 2\nmax = 2\n";
    fs::write(&file, wrong).unwrap();
    let lines = [
        format!("{}:9: device.mtu: 5 is out of range", file.display()),
        format!("{}:10: device.speed: unknown field", file.display()),
    ];

    let shown = reload(&alone.node, &[]).unwrap();
    let answered = reload(&alone.node, &["--json"]).unwrap();
    let logged = alone.node.log().unwrap().len();
    hang_up(&alone.node).unwrap();
    wait_logged(&alone.node, logged, "nothing has changed").unwrap();

    let said = String::from_utf8(shown.stderr).unwrap();
    assert_eq!(
        (shown.status.code(), shown.stdout.as_slice()),
        (Some(2), &b""[..]),
        "{said}"
    );
    assert!(lines.iter().all(|line| said.contains(line)), "{said}");
    assert_eq!(answered.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&answered.stdout).unwrap();
    let problems = answer["problems"].as_array().unwrap().iter();
    let places = problems.map(|problem| json!([problem["file"], problem["line"], problem["field"]]));
    assert_eq!(
        places.collect::<Vec<_>>(),
        [json!([file, 9, "device.mtu"]), json!([file, 10, "device.speed"])]
    );
    let log = alone.node.log().unwrap()[logged..].to_owned();
    assert!(log.lines().all(|line| line.starts_with("<3>")), "{log}");
    assert!(
        log.contains("device.mtu") && log.contains("device.speed") && log.contains("line=10"),
        "{log}"
    );
    assert_eq!(state(&alone).unwrap(), before);

    // Right by itself, but not for this node.
    let cable = ["link", "add", "u0", "type", "veth", "peer", "name", "u1"];
    let up = |end| ["link", "set", end, "up"];
    let address = ["address", "add", "192.0.2.1/24", "dev", "u0"];
    for arguments in [&cable[..], &up("u0"), &up("u1"), &address] {
        alone.host.ip(arguments).unwrap();
    }
    let own_id = alone.node.peer_id().to_owned();
    type Change<'a> = &'a dyn Fn(&mut NodeConfig);
    let refusals: [(Change<'_>, &str); 3] = [
        (
            &|config| {
                config.peers[0].allowed_ips = vec!["10.60.0.0/24".to_owned(), "192.0.2.0/24".to_owned()]
            },
            "through u0",
        ),
        (
            &|config| config.peers[0].id.clone_from(&own_id),
            "is this node itself",
        ),
        (
            &|config| {
                config.addresses = vec!["10.43.0.9/24".to_owned()];
                config.peers[0].allowed_ips = vec!["10.42.0.1/32".to_owned()];
            },
            "10.42.0.1/32 is an address of the device",
        ),
    ];
    for (change, why) in refusals {
        let mut config = alone.config.clone();
        change(&mut config);
        alone.node.configure(&config).unwrap();
        let refused = reload(&alone.node, &["--json"]).unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(
            (refused.status.code(), refused.stdout.as_slice()),
            (Some(1), &b""[..])
        );
        assert!(said.contains(why), "{said}");
        assert_eq!(state(&alone).unwrap(), before, "{why}");
    }

    fs::remove_file(&file).unwrap();
    let unreadable = reload(&alone.node, &[]).unwrap();
    assert_eq!(unreadable.status.code(), Some(2));
    assert!(
        String::from_utf8(unreadable.stderr)
            .unwrap()
            .contains("No such file")
    );

    // Nobody writes to it.
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = reload(&alone.node, &[]).unwrap();
    let said = String::from_utf8(pipe.stderr).unwrap();
    assert_eq!(pipe.status.code(), Some(2), "{said}");
    assert!(said.contains("it is no regular file"), "{said}");
    assert_eq!(state(&alone).unwrap(), before);
    alone.node.ensure_alive().unwrap();
}
