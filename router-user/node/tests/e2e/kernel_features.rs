//! A node in a kernel that refuses it something: it does without, and says so at the start, in `status` and in the doctor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::output;
use xtask::lab::{Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(30);
const BTF: &str = "/sys/kernel/btf/vmlinux";
const WARNING: &str = "the egress program cannot see a packet's offloads";

#[test]
fn a_node_says_whether_this_kernel_lets_it_see_offloads() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let sees = Path::new(BTF).exists() && !lockdown.contains("[confidentiality]");

    let (available, detail) = feature(&pair.a, "packet_offloads").unwrap();
    let (verdict, found) = finding(Path::new(NODE), &pair.a, "packet_offloads").unwrap();
    let log = pair.a.node.log().unwrap();

    assert_eq!(available, sees, "{detail}");
    assert_eq!(verdict, if sees { "ok" } else { "warning" }, "{found}");
    assert_eq!(log.contains(WARNING), !sees, "{log}");
    if lockdown.contains("[confidentiality]") {
        assert!(detail.contains("confidentiality"), "{detail}");
        assert!(found.contains("confidentiality"), "{found}");
    }
    for address in [pair.b.v4, pair.b.v6] {
        assert_eq!(PingPlan::new(address).run(&pair.a.host).unwrap().n_lost(), 0);
    }
}

#[test]
fn a_node_runs_in_a_kernel_that_does_not_describe_itself() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("btf").unwrap();
    let node = without_btf(directory.path()).unwrap();

    let pair = Pair::start(&node, &PairPlan::unique()).unwrap();

    for name in ["btf", "packet_offloads"] {
        let (available, detail) = feature(&pair.a, name).unwrap();
        assert!(!available && detail.contains(BTF), "{name}: {detail}");
        let (verdict, found) = finding(&node, &pair.a, name).unwrap();
        assert!(
            verdict == "warning" && found.contains(BTF),
            "{name}: {verdict}, {found}"
        );
    }
    let log = pair.a.node.log().unwrap();
    assert!(
        log.contains(WARNING) && log.contains("CONFIG_DEBUG_INFO_BTF"),
        "{log}"
    );
    for address in [pair.b.v4, pair.b.v6] {
        assert_eq!(PingPlan::new(address).run(&pair.a.host).unwrap().n_lost(), 0);
    }
}

/// Makes a program that runs the node where the kernel's description of itself is out of sight.
fn without_btf(directory: &Path) -> Result<PathBuf> {
    let program = directory.join("stream-router");
    let hide = format!(
        "mount -t tmpfs none {}",
        Path::new(BTF).parent().context("a directory")?.display()
    );
    let script = format!("#!/bin/sh\nexec unshare -m sh -c '{hide} && exec {NODE} \"$@\"' node \"$@\"\n");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Returns whether the running node has a feature of the kernel, and what it says of it.
fn feature(side: &Side, name: &str) -> Result<(bool, String)> {
    let status = side.node.ask::<Value>(&["status"])?;
    let features = status["kernel"]["features"].as_array().context("features")?;
    let feature = features.iter().find(|feature| feature["name"] == name);
    let feature = feature.with_context(|| format!("no {name} in {status}"))?;
    let detail = feature["detail"].as_str().context("a detail")?;
    Ok((feature["available"] == true, detail.to_owned()))
}

/// Returns what the doctor, run as `program`, says of a check, and what it is about.
fn finding(program: &Path, side: &Side, check: &str) -> Result<(String, String)> {
    let mut doctor = side.host.command(program.to_str().context("a path of ASCII")?);
    doctor
        .args(["doctor", "--json", "--config"])
        .arg(side.node.config());
    let report: Value = serde_json::from_slice(&output(&mut doctor, LIMIT)?.stdout)?;
    let findings = report["findings"].as_array().context("findings")?;
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.with_context(|| format!("no {check} in {report}"))?;
    let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    Ok((text("verdict"), text("detail")))
}
