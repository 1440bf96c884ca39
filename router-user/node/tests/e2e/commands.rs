//! Every command that asks a node, against live nodes, as lines and as JSON.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::process::{output, until};
use xtask::lab::{Pair, PairPlan, ScratchDir, Transport};

const API: &str = include_str!("../../src/control/API.md");
const LIMIT: Duration = Duration::from_secs(60);

/// Ports of two flows, and how many datagrams go to each.
const FLOWS: [(u16, u64); 2] = [(20_001, 10), (20_002, 20)];
const DATAGRAM: &[u8] = b"datagram";
const PACKET_BYTES: u64 = 20 + 8 + 8;

struct Scene {
    pair: Pair,
    peer: String,
    destination: IpAddr,
    // Open ports, so that no ICMP error goes back.
    _receivers: Vec<UdpSocket>,
}

impl Scene {
    /// Two nodes over TCP, and the flows from the first to the second.
    fn new() -> Result<Self> {
        let plan = PairPlan {
            transport: Transport::Tcp,
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("commands")?)?;
        // No flow is forgotten while it is looked at.
        pair.a.config.sections = "\n[connections]\nttl = \"10m\"\n".to_owned();
        pair.a.node.configure(&pair.a.config)?;
        pair.start_nodes()?;
        let to = |port| SocketAddr::new(pair.b.v4, port);
        let bind = |at: SocketAddr| UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"));
        let receivers = pair
            .b
            .host
            .enter(|| FLOWS.map(|(port, _)| bind(to(port))).into_iter().collect())?;
        let sender = pair.a.host.enter(|| bind(SocketAddr::new(pair.a.v4, 0)))?;
        for (port, n) in FLOWS {
            for _ in 0..n {
                sender.send_to(DATAGRAM, to(port))?;
            }
        }
        let scene = Self {
            peer: pair.b.node.peer_id().to_owned(),
            destination: pair.b.v4,
            pair,
            _receivers: receivers,
        };
        until("the other node has every datagram", LIMIT, || {
            let status = scene.pair.b.node.status()?;
            let peer = status.peer(scene.pair.a.node.peer_id())?;
            Ok((peer.rx_frames >= 30).then_some(()))
        })?;
        Ok(scene)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(NODE);
        command
            .args(arguments)
            .arg("--socket")
            .arg(self.pair.a.node.socket());
        output(&mut command, LIMIT).expect("the command ends")
    }

    /// What it prints for people.
    fn lines(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it prints with `--json`; every field of it is documented.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.lines(&[arguments, &["--json"]].concat());
        let value = serde_json::from_str(&text).expect("JSON");
        let mut names = BTreeSet::new();
        fields(&value, "", &mut names);
        for name in names {
            assert!(
                API.contains(&format!("`{name}`")),
                "{arguments:?}: {name} is not documented"
            );
        }
        value
    }

    /// The flows that it prints with `--json`.
    fn flows(&self, arguments: &[&str]) -> Value {
        self.json(&[&["flows"], arguments].concat())
    }

    /// What it says when it fails, and its exit code.
    fn error(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(output.stdout.is_empty(), "{arguments:?}");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

fn fields(value: &Value, above: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let name = if above.is_empty() {
                    name.clone()
                } else {
                    format!("{above}.{name}")
                };
                fields(inner, &name, into);
                into.insert(name);
            }
        }
        Value::Array(values) => values.iter().for_each(|inner| fields(inner, above, into)),
        _ => {}
    }
}

fn array<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().expect("an array")
}

/// The line that contains `part`.
fn line<'a>(text: &'a str, part: &str) -> &'a str {
    let mut lines = text.lines();
    let found = lines.find(|line| line.contains(part));
    found.unwrap_or_else(|| panic!("no line has {part:?}:\n{text}"))
}

#[test]
fn every_command_shows_the_live_node_as_lines_and_as_json() {
    let _machine = machine::shared();
    let scene = Scene::new().unwrap();

    status(&scene);
    peers(&scene);
    flows(&scene);
    workers(&scene);
    streams(&scene);
    counters(&scene);
    routes(&scene);
    wrong_input(&scene);
}

fn status(scene: &Scene) {
    let (json, text) = (scene.json(&["status"]), scene.lines(&["status"]));

    let config = &scene.pair.a.config;
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["peer_id"], scene.pair.a.node.peer_id());
    assert_eq!(json["device"]["name"], *config.device);
    assert_eq!(json["connected_peers"], 1);
    assert_eq!(json["hook"], "clsact egress");
    assert!(json["hook_reason"].as_str().is_some_and(|why| !why.is_empty()));
    assert_eq!(json["sink"], "ring buffer");
    let features = array(&json["kernel"], "features");
    let names: Vec<_> = features.iter().map(|feature| &feature["name"]).collect();
    assert_eq!(names, ["btf", "packet_offloads", "bpffs"]);
    assert!(line(&text, "peer id").ends_with(scene.pair.a.node.peer_id()));
    assert!(line(&text, "peers").ends_with("1 of 1 connected"));
    assert!(line(&text, "device").contains(&config.device));
    assert!(
        line(&text, "connected  ").contains(&scene.destination.to_string()),
        "{text}"
    );
    assert!(!text.contains("clsact egress"), "{text}");
    let all = scene.lines(&["status", "--verbose"]);
    assert!(line(&all, "hook").contains("clsact egress"), "{all}");
    assert!(
        line(&all, "kernel").len() > 10 && line(&all, "memory").contains("flows"),
        "{all}"
    );
    let mode = std::fs::metadata(scene.pair.a.node.socket())
        .expect("the socket is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn peers(scene: &Scene) {
    let (json, text) = (scene.json(&["peers"]), scene.lines(&["peers"]));

    let [peer] = &array(&json, "peers")[..] else {
        panic!("{json}");
    };
    assert_eq!(peer["id"], *scene.peer);
    assert_eq!(peer["state"], "connected");
    assert_eq!(peer["transport"], "tcp");
    assert!(peer["handshake_age_seconds"].as_f64().expect("a number") >= 0.0);
    assert!(peer["connections"].as_u64().expect("a number") >= 1);
    assert!(peer["tx_frames"].as_u64().expect("a number") >= 30);
    assert!(peer["tx_bytes"].as_u64().expect("a number") >= 30 * PACKET_BYTES);
    let end = &scene.peer[scene.peer.len() - 8..];
    let row: Vec<_> = line(&text, end).split_whitespace().collect();
    let destination = scene.destination.to_string();
    assert_eq!(row[..4], [end, &destination, "connected", "tcp"], "{text}");
    assert!(!text.contains(&scene.peer), "{text}");
    let wide = scene.lines(&["peers", "--verbose", "--sort", "received"]);
    assert!(line(&wide, end).contains(&scene.peer), "{wide}");
    assert_eq!(
        scene.json(&["peers", &destination])["peers"][0]["id"],
        *scene.peer
    );
    let none = scene.json(&["peers", "--state", "idle"]);
    assert_eq!(array(&none, "peers").len(), 0);
    let text = scene.lines(&["peers", end]);
    assert_eq!(line(&text, "peer "), format!("peer {}", scene.peer));
    assert_eq!(line(&text, "state"), "  state     connected");
    assert!(line(&text, "address").contains(peer["address"].as_str().expect("a text")));
    assert!(line(&text, "handshake").ends_with(" ago"));
    until("the mean of the last minute is known", LIMIT, || {
        let peers = scene.json(&["peers"]);
        let mean = peers["peers"][0]["tx_bytes_per_second"].as_f64();
        Ok(mean.filter(|mean| *mean > 0.0))
    })
    .expect("it comes to be known");
}

fn flows(scene: &Scene) {
    let destination = scene.destination.to_string();
    let end = &scene.peer[scene.peer.len() - 8..];
    for (port, n) in FLOWS {
        let port = port.to_string();
        let arguments = [
            "--port",
            &port,
            "--address",
            &destination,
            "--peer",
            end,
            "--protocol",
            "udp",
        ];

        let json = scene.flows(&arguments);

        let [flow] = &array(&json, "flows")[..] else {
            panic!("{json}");
        };
        assert_eq!(json["matched"], 1);
        assert_eq!(flow["protocol"], "udp");
        assert_eq!(flow["destination"], *destination);
        assert_eq!(flow["destination_port"].to_string(), port);
        assert_eq!(flow["peer"], *scene.peer);
        assert_eq!(flow["stream"], 0);
        assert_eq!(flow["packets"], n);
        assert_eq!(flow["bytes"], n * PACKET_BYTES);
        assert!(flow["worker"].as_u64().expect("a number") < 32);
        assert!(flow["age_seconds"].as_f64() >= flow["idle_seconds"].as_f64());
        let text = scene.lines(&["flows", "--port", &port]);
        let row: Vec<_> = line(&text, &format!("{destination}:{port}"))
            .split_whitespace()
            .collect();
        assert_eq!((row[0], row[3], row[4]), ("udp", end, "0"), "{text}");
        assert!(line(&text, "shown").starts_with("1 shown, 1 match, "), "{text}");
    }
    let all = scene.flows(&[
        "--protocol",
        "udp",
        "--address",
        &destination,
        "--sort",
        "packets",
    ]);
    let ports = array(&all, "flows")
        .iter()
        .map(|flow| flow["destination_port"].as_u64());
    assert_eq!(ports.collect::<Vec<_>>(), [Some(20_002), Some(20_001)]);
    let first = scene.flows(&["--protocol", "17", "--address", &destination, "--top", "1"]);
    assert_eq!(
        (array(&first, "flows").len(), &first["matched"]),
        (1, &Value::from(2))
    );
    assert_eq!(array(&first, "flows")[0]["destination_port"], 20_002);
    for nothing in [
        ["--port", "1"],
        ["--address", "2001:db8::/32"],
        ["--protocol", "sctp"],
    ] {
        assert_eq!(scene.flows(&nothing)["matched"], 0, "{nothing:?}");
    }
}

fn workers(scene: &Scene) {
    let (json, text) = (scene.json(&["workers"]), scene.lines(&["workers"]));

    let workers = array(&json, "workers");
    let packets = workers
        .iter()
        .map(|worker| worker["packets"].as_u64().expect("a number"));
    let bytes = workers
        .iter()
        .map(|worker| worker["bytes"].as_u64().expect("a number"));
    assert_eq!(scene.json(&["status"])["workers"], workers.len());
    assert!(packets.sum::<u64>() >= 30);
    assert!(bytes.sum::<u64>() >= 30 * (PACKET_BYTES + 24));
    for (id, worker) in workers.iter().enumerate() {
        assert_eq!(worker["id"], id);
        assert_eq!(worker["state"], "active");
        assert!((0.0..=1.0).contains(&worker["fill"].as_f64().expect("a number")));
        assert!(worker["thread"].as_str().expect("a text").starts_with("sr-data-"));
    }
    assert_eq!(text.lines().count(), 1 + workers.len());
    assert!(line(&text, "WORKER").contains("FILL"));
}

fn streams(scene: &Scene) {
    let (json, text) = (scene.json(&["streams"]), scene.lines(&["streams"]));

    let stream = &array(&json, "streams")[0];
    assert_eq!(stream["peer"], *scene.peer);
    assert_eq!(stream["index"], 0);
    assert_eq!(stream["state"], "active");
    assert_eq!(stream["open"], true);
    assert_eq!(stream["transport"], "tcp");
    assert!(stream["frames"].as_u64().expect("a number") >= 30);
    assert_eq!(stream["refused"], 0);
    let row: Vec<_> = line(&text, "active").split_whitespace().collect();
    assert_eq!(row[1..5], ["0", "active", "yes", "tcp"], "{text}");
}

fn counters(scene: &Scene) {
    let (json, text) = (scene.json(&["counters"]), scene.lines(&["counters"]));

    let counters = array(&json, "counters");
    let named = |name: &str| {
        counters
            .iter()
            .find(|counter| counter["name"] == name)
            .expect("it is there")
    };
    assert!(named("captured")["value"].as_u64().expect("a number") >= 30);
    for (name, origin, kind) in [
        ("captured", "kernel", "event"),
        ("ring_full", "kernel", "drop"),
        ("socket_full", "socket", "drop"),
        ("tx_no_route", "user", "drop"),
        ("unknown_peers_refused", "network", "event"),
    ] {
        assert_eq!(
            (&named(name)["origin"], &named(name)["kind"]),
            (&origin.into(), &kind.into()),
            "{name}"
        );
    }
    assert!(line(&text, "captured").ends_with("packets given to a worker; a super-packet is one"));
    assert!(!text.contains("rx_protocol_error"), "{text}");
    let all = scene.lines(&["counters", "--all"]);
    assert_eq!(all.lines().count(), 1 + counters.len());
}

fn routes(scene: &Scene) {
    let (json, text) = (scene.json(&["routes"]), scene.lines(&["routes"]));

    let prefix = format!("{}/32", scene.destination);
    let route = array(&json, "routes")
        .iter()
        .find(|route| route["prefix"] == *prefix);
    let route = route.expect("the peer's prefix");
    assert_eq!(route["peer"], *scene.peer);
    assert_eq!(route["source"], "allowed_ips");
    assert!(line(&text, &prefix).ends_with(&scene.peer));
}

fn wrong_input(scene: &Scene) {
    for (arguments, code, said) in [
        (&["flows", "--port", "65536"][..], 2, "65536 is not in 0..=65535"),
        (&["flows", "--address", "10.42"], 2, "a prefix such as 10.0.0.0/8"),
        (
            &["flows", "--sort", "size"],
            2,
            "[possible values: bytes, packets, tx, rx, age, idle]",
        ),
        (&["flows", "--top", "0"], 2, "a number from 1 to 10000"),
        (&["flows", "--protocol", "tcq"], 2, "\"tcq\" is no protocol"),
        (
            &["flows", "--peer", "nobody"],
            1,
            "no peer's id ends with nobody; the command peers lists them",
        ),
        (&["peers", "--all"], 2, "unexpected argument '--all'"),
        (&["peers", "--sort", "size"], 2, "invalid value 'size'"),
        (&["peers", "--watch", "--json"], 2, "cannot be used with"),
        (&["peers", "--watch=0"], 2, "a number of seconds from 0.5 to 3600"),
        (&["peers", "nobody"], 1, "no peer is called nobody"),
    ] {
        let (exit, error) = scene.error(arguments);

        assert_eq!(exit, Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
