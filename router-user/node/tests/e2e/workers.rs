//! Workers that come and go, and the connection table as operators read it.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine, runtime};
use stream_router_node::control::{ControlError, set_workers};
use xtask::lab::probe::Gate;
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{text, until};
use xtask::lab::{PIN_ROOT, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(20);
const SLOT_COUNT: usize = 1024;

/// A pair whose first node forgets flows fast and decides nothing by itself.
fn pair() -> Result<Pair> {
    let directory = ScratchDir::unique("workers")?;
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory)?;
    pair.a.config.sections = "\n[workers]\nscale_interval = \"1h\"\n\
                              [connections]\nttl = \"1s\"\ncleanup_interval = \"500ms\"\n"
        .to_owned();
    pair.a.node.configure(&pair.a.config)?;
    pair.start_nodes()?;
    Ok(pair)
}

fn scale(side: &Side, n: u32) -> Result<(), ControlError> {
    runtime().block_on(set_workers(&side.node.socket(), n))
}

fn bpftool(arguments: &[&str], pin: &str, side: &Side) -> Result<Value> {
    let path = Path::new(PIN_ROOT).join(&side.config.device).join(pin);
    let printed = text(
        Command::new("bpftool").arg("-j").args(arguments).arg(path),
        Duration::from_secs(10),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("bpftool printed {printed}"))
}

/// Elements of a map, as bpftool formats them by BTF.
fn dump(pin: &str, side: &Side) -> Result<Vec<Value>> {
    let printed = bpftool(&["map", "dump", "pinned"], pin, side)?;
    let elements = printed.as_array().context("a list of elements")?;
    let formatted = elements.iter().map(|element| element["formatted"].clone());
    Ok(formatted.collect())
}

/// Slots of each worker.
fn shares(side: &Side) -> Result<BTreeMap<u64, usize>> {
    let mut shares = BTreeMap::new();
    for slot in dump("SLOTS", side)? {
        let worker = slot["value"].as_u64().context("a worker")?;
        *shares.entry(worker).or_default() += 1;
    }
    Ok(shares)
}

#[test]
fn workers_come_with_rings_and_slots_and_go_once_their_flows_are_idle() {
    let _machine = machine::shared();
    let pair = pair().unwrap();
    let a = &pair.a;
    assert_eq!(a.node.status().unwrap().workers, 8);
    assert_eq!(
        shares(a).unwrap(),
        (0..8).map(|worker| (worker, SLOT_COUNT / 8)).collect()
    );

    scale(a, 32).unwrap();

    let grown = a.node.status().unwrap();
    assert_eq!((grown.workers, grown.retired_workers), (32, 0));
    assert_eq!(
        shares(a).unwrap(),
        (0..32).map(|worker| (worker, SLOT_COUNT / 32)).collect()
    );
    assert_eq!(dump("RINGS", a).unwrap().len(), 32);
    assert_eq!(PingPlan::new(pair.b.v4).run(&a.host).unwrap().n_lost(), 0);

    scale(a, 4).unwrap();

    let shrunk = a.node.status().unwrap();
    assert_eq!((shrunk.workers, shrunk.retired_workers), (4, 28));
    assert_eq!(shares(a).unwrap().into_keys().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let gone = |status: &xtask::lab::Status| status.retired_workers == 0;
    a.node
        .wait_for("the retired workers are gone", LIMIT, gone)
        .unwrap();
    assert_eq!(dump("RINGS", a).unwrap().len(), 4);
    assert_eq!(PingPlan::new(pair.b.v4).run(&a.host).unwrap().n_lost(), 0);
}

#[test]
fn a_live_flow_keeps_its_worker_whatever_comes_and_goes() {
    let _machine = machine::shared();
    let pair = pair().unwrap();
    let a = &pair.a;
    let socket = a.host.enter(|| Ok(UdpSocket::bind((a.v4, 7100))?)).unwrap();
    let send = || socket.send_to(b"still here", (pair.b.v4, 7200));
    let worker = || -> Result<u64> {
        let flows = dump("CONNECTIONS", a)?;
        let flow = flows
            .iter()
            .find(|flow| flow["key"]["source_port_be"] == serde_json::json!([27, 188]));
        let value = &flow.context("the flow is in the table")?["value"];
        value["worker"].as_u64().context("a worker")
    };
    send().unwrap();
    let first = worker().unwrap();
    let done = Gate::default();

    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // Often enough that the flow is never idle, whatever else takes its time.
            while !done.pause(Duration::from_millis(50)) {
                send()?;
            }
            Ok::<_, std::io::Error>(())
        });
        let stop = done.open_on_drop();
        for n in [32, 4, 20, 4, 32, 5, 4] {
            scale(a, n).unwrap();
            assert_eq!(worker().unwrap(), first, "with {n} workers");
        }
        // Only its own stays of those that are retired.
        let n_kept = u32::from(first >= 4);
        let others_gone = |status: &xtask::lab::Status| status.retired_workers == n_kept;
        let waited = a.node.wait_for("the other workers are gone", LIMIT, others_gone);
        waited.unwrap();
        assert_eq!(worker().unwrap(), first, "with 4 workers");
        drop(stop);
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn a_number_outside_the_bounds_is_refused() {
    let _machine = machine::shared();
    let pair = pair().unwrap();

    for n in [0, 3, 33] {
        let refused = scale(&pair.a, n).unwrap_err().to_string();
        assert!(
            refused.contains("workers.min to workers.max, 4 to 32"),
            "{refused}"
        );
    }

    assert_eq!(pair.a.node.status().unwrap().workers, 8);
}

#[test]
fn bpftool_shows_flows_counters_and_names_and_an_idle_flow_goes() {
    let _machine = machine::shared();
    let pair = pair().unwrap();
    let a = &pair.a;
    let socket = a.host.enter(|| Ok(UdpSocket::bind((a.v4, 7100))?)).unwrap();

    for _ in 0..3 {
        socket.send_to(&[7; 100], (pair.b.v4, 7200)).unwrap();
    }

    let flows = dump("CONNECTIONS", a).unwrap();
    let flow = flows
        .iter()
        .find(|flow| flow["key"]["destination_port_be"] == serde_json::json!([28, 32]))
        .unwrap();
    let (key, value) = (&flow["key"], &flow["value"]);
    let mapped = |last: u8| serde_json::json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 42, 0, last]);
    assert_eq!((&key["source"], &key["destination"]), (&mapped(1), &mapped(2)));
    assert_eq!((&key["protocol"], &key["family"]), (&17.into(), &4.into()));
    assert_eq!(
        (&value["packets"], &value["bytes"]),
        (&3.into(), &(3 * 128).into())
    );
    assert_eq!(value["peer"], 0);
    assert!(value["worker"].as_u64().unwrap() < 8);
    assert!(value["last_seen_ns"].as_u64() >= value["first_seen_ns"].as_u64());

    let captured = &dump("COUNTERS", a).unwrap()[0];
    assert_eq!(captured["key"], 0);
    let per_cpu = captured["values"].as_array().unwrap().iter();
    assert!(
        per_cpu.map(|cpu| cpu["value"].as_u64().unwrap()).sum::<u64>() >= 3,
        "{captured}"
    );
    let program = bpftool(&["prog", "show", "pinned"], "sr_egress", a).unwrap();
    assert_eq!(
        (&program["name"], &program["type"]),
        (&"sr_egress".into(), &"sched_cls".into())
    );
    for name in [
        "CONNECTIONS",
        "SLOTS",
        "PEERS",
        "PRESSURE",
        "RINGS",
        "WAKE",
        "COUNTERS",
        "SETTINGS",
    ] {
        let map = bpftool(&["map", "show", "pinned"], name, a).unwrap();
        assert_eq!(map["name"], name);
        assert!(name == "RINGS" || map["btf_id"].is_u64(), "{name} has BTF: {map}");
    }

    let gone = |flows: Vec<Value>| {
        flows
            .iter()
            .all(|flow| flow["key"]["destination_port_be"] != key["destination_port_be"])
    };
    until("the idle flow is gone", LIMIT, || {
        Ok(gone(dump("CONNECTIONS", a)?).then_some(()))
    })
    .unwrap();
}
