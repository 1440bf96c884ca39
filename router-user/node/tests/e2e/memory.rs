//! A node on a host, or in a control group, with little memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::control_group::ControlGroup;
use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::output;
use xtask::lab::{Pair, PairPlan, ScratchDir, Side, unique_device};

const LIMIT: Duration = Duration::from_secs(15);

/// What two nodes of an unoptimised build need, with traffic.
const LITTLE: u64 = 320 << 20;

/// A pair of nodes with the sizes that a host with enough memory gives them.
fn pair_of_usual_sizes() -> Result<Pair> {
    let directory = ScratchDir::unique("memory")?;
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory)?;
    pair.a.config.sections =
        "\n[connections]\nmax_entries = 262144\n[workers]\nqueue_size = 1000\n".to_owned();
    pair.a.node.configure(&pair.a.config)?;
    pair.start_nodes()?;
    Ok(pair)
}

#[test]
fn a_node_with_little_memory_reserves_less_and_carries_packets() {
    let _machine = machine::shared();
    // Its processes go before it.
    let group = ControlGroup::with_memory(&unique_device(), LITTLE).unwrap();
    let directory = ScratchDir::unique("memory").unwrap();
    let confined = directory.path().join("stream-router");
    fs::write(
        &confined,
        format!(
            "#!/bin/sh\necho $$ >{}/cgroup.procs && exec {NODE} \"$@\"\n",
            group.directory().display()
        ),
    )
    .unwrap();
    fs::set_permissions(&confined, fs::Permissions::from_mode(0o755)).unwrap();
    let usual = pair_of_usual_sizes().unwrap();
    let usual_bytes = bytes_of_maps(&usual.a).unwrap();
    drop(usual);

    let pair = Pair::start(&confined, &PairPlan::unique()).unwrap();

    let memory = pair.a.node.ask::<Value>(&["status"]).unwrap()["memory"].clone();
    assert_eq!(memory["limit_bytes"], LITTLE, "{memory}");
    assert_eq!(
        memory["limited_by"],
        group.directory().to_str().unwrap(),
        "{memory}"
    );
    assert_eq!(memory["max_flows"], LITTLE / 8192, "{memory}");
    assert_eq!(memory["ring_bytes"], 512 << 10, "{memory}");
    let bytes = bytes_of_maps(&pair.a).unwrap();
    assert!(bytes * 3 < usual_bytes, "{bytes} of {usual_bytes}");
    assert_eq!(PingPlan::new(pair.b.v4).run(&pair.a.host).unwrap().n_lost(), 0);
    let said = doctors_memory(&pair.a).unwrap();
    assert!(
        said.contains("320.0 MiB by ") && said.contains("40960 flows"),
        "{said}"
    );
}

/// Returns what the kernel counts for the maps of a node, as `bpftool map` shows it.
fn bytes_of_maps(side: &Side) -> Result<u64> {
    let process = side.node.process_id().context("the node runs")?;
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // A descriptor of another kind may be closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| -> Option<u64> {
            let value = info.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.into_values().sum())
}

fn doctors_memory(side: &Side) -> Result<String> {
    let mut doctor = side.host.command(NODE);
    doctor
        .args(["doctor", "--json", "--config"])
        .arg(side.node.config());
    let report: Value = serde_json::from_slice(&output(&mut doctor, LIMIT)?.stdout)?;
    let findings = report["findings"].as_array().context("findings")?;
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == "memory")
        .context("a finding about memory")?;
    Ok(finding["detail"].as_str().context("a detail")?.to_owned())
}
