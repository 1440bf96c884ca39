//! What a node leaves behind: nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::output;
use xtask::lab::{Namespace, Node, NodeConfig, PIN_ROOT, Pair, PairPlan, ScratchDir, Side, unique_device};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_signal_ends_a_node_in_order_and_nothing_is_left() {
    let _machine = machine::shared();
    let mut pair = prepared();

    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let status = pair.a.node.start().unwrap();
        assert!(
            traces(&pair.a).len() >= 4,
            "a running node leaves traces: {:?}",
            traces(&pair.a)
        );
        assert!(status.pins.is_some(), "bpffs is mounted, so maps are pinned");

        let ended = pair.a.node.stop(signal).unwrap();

        assert!(ended.success(), "{signal}: {ended}");
        assert_eq!(traces(&pair.a), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn a_signal_ends_a_node_under_traffic() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    let mut flood = pair.a.host.command("ping");
    flood
        .args(["-q", "-f", "-s", "1000", &pair.b.v4.to_string()])
        .stdout(std::process::Stdio::null());
    let mut flood = flood.spawn().unwrap();

    let ended = [
        pair.b.node.stop(Signal::SIGTERM).unwrap(),
        pair.a.node.stop(Signal::SIGTERM).unwrap(),
    ];

    flood.kill().unwrap();
    flood.wait().unwrap();
    assert!(ended.iter().all(|status| status.success()), "{ended:?}");
    assert_eq!(traces(&pair.a), Vec::<String>::new());
    assert_eq!(traces(&pair.b), Vec::<String>::new());
}

#[test]
fn a_failed_start_leaves_nothing() {
    let _machine = machine::shared();
    let mut pair = prepared();
    let listen = vec!["/ip4/203.0.113.9/tcp/4001".to_owned()];
    pair.a
        .node
        .configure(&NodeConfig {
            listen,
            ..pair.a.config.clone()
        })
        .unwrap();

    pair.a.node.launch().unwrap();
    let ended = pair.a.node.wait_ended(LIMIT).unwrap();

    assert!(!ended.success());
    let log = pair.a.node.log().unwrap();
    assert!(
        log.contains("203.0.113.9"),
        "the message names the address: {log}"
    );
    assert_eq!(traces(&pair.a), Vec::<String>::new());
}

#[test]
fn a_start_after_a_kill_clears_what_was_left() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();

    pair.a.node.stop(Signal::SIGKILL).unwrap();
    assert!(
        !traces(&pair.a).is_empty(),
        "a killed node cannot remove its pins and socket"
    );
    pair.a.node.start().unwrap();

    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    assert_eq!(PingPlan::new(pair.b.v4).run(&pair.a.host).unwrap().n_lost(), 0);
    assert!(pair.a.node.stop(Signal::SIGTERM).unwrap().success());
    assert_eq!(traces(&pair.a), Vec::<String>::new());
}

#[test]
fn a_second_node_with_the_same_device_fails_and_harms_nothing() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let before = traces(&pair.a);
    let mut second = Node::new(Path::new(NODE), &pair.a.host, pair.directory(), "second").unwrap();
    let listen = vec!["/ip4/0.0.0.0/tcp/4002".to_owned()];
    second
        .configure(&NodeConfig {
            listen,
            ..pair.a.config.clone()
        })
        .unwrap();

    second.launch().unwrap();
    let ended = second.wait_ended(LIMIT).unwrap();

    assert!(!ended.success());
    let log = second.log().unwrap();
    assert!(
        log.contains(&pair.a.config.device),
        "the message names the device: {log}"
    );
    assert_eq!(traces(&pair.a), before);
    assert!(answers(&pair.a.host, pair.b.v4, LIMIT).unwrap());
}

#[test]
fn a_node_without_privilege_says_so() {
    let _machine = machine::shared();
    const NOBODY: u32 = 65_534;
    let directory = ScratchDir::unique("nobody").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("stream-router");
    fs::copy(NODE, &binary).unwrap();
    let host = Namespace::unique("nobody").unwrap();
    let node = Node::new(&binary, &host, directory.path(), "a").unwrap();
    node.configure(&PairPlan::unique().config(0, node.peer_id()))
        .unwrap();
    for file in [directory.path(), &node.key(), &node.config()] {
        chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
    }

    let mut command = Command::new(&binary);
    command
        .arg("run")
        .arg("--config")
        .arg(node.config())
        .uid(NOBODY)
        .gid(NOBODY);
    let output = output(&mut command, LIMIT).unwrap();

    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("root") || message.contains("CAP_NET_ADMIN"),
        "{message}"
    );
    assert!(!message.contains("panicked"), "{message}");
}

fn prepared() -> Pair {
    let directory = ScratchDir::unique("lifecycle").expect("a directory can be made");
    Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory).expect("hosts can be made")
}

#[test]
fn devices_of_one_name_in_two_namespaces_share_no_pins() {
    let _machine = machine::shared();
    let device = unique_device();
    let plan = PairPlan {
        devices: [device.clone(), device],
        ..PairPlan::unique()
    };
    let mut pair = Pair::start(Path::new(NODE), &plan).unwrap();
    let pins = |side: &Side| side.node.status().unwrap().pins;

    let [first, second] = [pins(&pair.a), pins(&pair.b)];
    assert!(first.is_some() != second.is_some(), "{first:?}, {second:?}");
    assert!(answers(&pair.a.host, pair.b.v4, LIMIT).unwrap());
    let [owner, other] = if first.is_some() {
        [&mut pair.a, &mut pair.b]
    } else {
        [&mut pair.b, &mut pair.a]
    };

    other.node.stop(Signal::SIGTERM).unwrap();
    let directory = Path::new(PIN_ROOT).join(&owner.config.device);
    assert!(directory.join("CONNECTIONS").exists(), "the owner's pins stay");
    owner.node.stop(Signal::SIGTERM).unwrap();
    assert!(!directory.exists());
}

/// Everything of a node that others can see: its device with addresses and queueing, routes, pins, socket.
fn traces(side: &Side) -> Vec<String> {
    let device = &side.config.device;
    let mut traces = Vec::new();
    let shown = [
        &["-oneline", "link", "show"][..],
        &["-oneline", "address", "show"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ];
    for args in shown {
        let printed = side.host.ip(args).expect("ip shows");
        let of_the_node =
            |line: &&str| line.contains(device.as_str()) || line.contains("10.42.") || line.contains("fd42:");
        traces.extend(
            printed
                .lines()
                .filter(of_the_node)
                .map(|line| line.trim().to_owned()),
        );
    }
    let files = [Path::new(PIN_ROOT).join(device), side.node.socket()];
    traces.extend(
        files
            .iter()
            .filter(|file| file.exists())
            .map(|file| file.display().to_string()),
    );
    traces
}

#[test]
fn packets_go_before_the_applications_that_send_them() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    let threads = format!("/proc/{}/task", pair.a.node.process_id().unwrap());
    let mut niceness = None;
    for thread in fs::read_dir(threads).unwrap() {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        if let Some((_, rest)) = stat.split_once("(sr-data-0) ") {
            // The 19th field, of which two stand before (proc_pid_stat(5)).
            niceness = rest.split(' ').nth(16).map(str::to_owned);
        }
    }

    assert_eq!(niceness.as_deref(), Some("-10"));
}
