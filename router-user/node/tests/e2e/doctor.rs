//! The doctor before and beside live nodes: each setting broken on purpose is found, and the command it prints fixes
//! it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::process::{output, text, until};
use xtask::lab::{Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(30);
const GATEWAY: &str = "lan0";
const METRICS: &str = "127.0.0.1:9464";
const QUIC: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";

struct Scene {
    pair: Pair,
}

/// What doctor said.
struct Report {
    exit: Option<i32>,
    json: Value,
}

impl Scene {
    /// Two nodes that are not started; the first has a gateway too.
    fn new() -> Result<Self> {
        let plan = PairPlan::unique();
        let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("doctor")?)?;
        pair.a
            .host
            .ip(&["link", "add", GATEWAY, "type", "veth", "peer", "name", "lan1"])?;
        for end in [GATEWAY, "lan1"] {
            pair.a.host.ip(&["link", "set", end, "up"])?;
        }
        let [token, hook] = ["token", "hook"].map(|name| pair.directory().join(name));
        fs::write(&token, "0123456789abcdef\n")?;
        fs::write(&hook, "#!/bin/sh\n")?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        pair.a.config.sections = format!(
            "\n[metrics]\nlisten = \"{METRICS}\"\ntoken_file = {token:?}\n[hooks]\nup = [{hook:?}]\n\
             [[gateway]]\ninterface = \"{GATEWAY}\"\n"
        );
        pair.a.config.listen.push(QUIC.to_owned());
        pair.a.node.configure(&pair.a.config)?;
        let scene = Self { pair };
        // What the namespace begins with is the host's affair.
        scene.sh(
            "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0",
        )?;
        scene.sh("sysctl -w net.ipv4.conf.default.rp_filter=0 net.ipv4.tcp_rmem='4096 131072 6291456'")?;
        Ok(scene)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.pair.a.host.command(NODE);
        command.arg("doctor").args(arguments);
        command
    }

    fn report(&self) -> Result<Report> {
        let config = self.pair.a.node.config();
        let config = config.to_str().context("a path of ASCII")?;
        let output = output(&mut self.command(&["--json", "--config", config]), LIMIT)?;
        Report::read(&output)
    }

    /// Runs a line of shell in the first node's namespace.
    fn sh(&self, line: &str) -> Result<String> {
        text(self.pair.a.host.command("sh").args(["-c", line]), LIMIT)
    }

    /// Lets the doctor find what is broken now, runs the command that it prints, and lets it find nothing.
    fn fixed(&self, check: &str, subject: &str, verdict: &str) -> Result<()> {
        let broken = self.report()?;
        let finding = broken.finding(check, subject)?;
        ensure!(finding["verdict"] == verdict, "{finding}");
        let has_problem = broken.json["problems"] != 0;
        ensure!(
            broken.exit == Some(i32::from(has_problem)),
            "{:?}: {}",
            broken.exit,
            broken.json
        );
        ensure!(has_problem || verdict != "problem", "{}", broken.json);
        let command = finding["fix"].as_str().context("no command")?;

        // The program need not be installed where the test runs.
        self.sh(&command.replace("stream-router", NODE))
            .with_context(|| format!("{check}: {command}"))?;

        let fixed = self.report()?;
        let finding = fixed.finding(check, subject)?;
        ensure!(finding["verdict"] == "ok", "{command}: {finding}");
        Ok(())
    }

    /// Lets the doctor find a problem that no command can be printed for in whole.
    fn found(&self, check: &str, subject: &str) -> Result<()> {
        let report = self.report()?;
        let finding = report.finding(check, subject)?;
        ensure!(finding["verdict"] == "problem", "{finding}");
        ensure!(report.exit == Some(1), "{:?}", report.exit);
        Ok(())
    }
}

impl Report {
    fn read(output: &std::process::Output) -> Result<Self> {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&stdout)
            .with_context(|| format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Self {
            exit: output.status.code(),
            json,
        })
    }

    fn finding(&self, check: &str, subject: &str) -> Result<&Value> {
        let findings = self.json["findings"].as_array().context("no findings")?;
        let mut of_check = findings.iter().filter(|finding| finding["check"] == check);
        of_check
            .find(|finding| finding["subject"].as_str().unwrap_or_default().contains(subject))
            .with_context(|| format!("no {check} of {subject:?}: {}", self.json))
    }

    fn verdict(&self, check: &str) -> &str {
        let finding = self.finding(check, "").expect("a finding");
        finding["verdict"].as_str().expect("a text")
    }
}

#[test]
fn what_is_broken_is_found_and_fixed_by_the_command_that_is_printed() {
    let _machine = machine::shared();
    let mut scene = Scene::new().unwrap();

    a_host_in_order_has_no_problem(&scene);
    settings(&scene).unwrap();
    files(&scene).unwrap();
    interfaces(&scene).unwrap();
    firewall(&scene).unwrap();
    configuration(&scene).unwrap();
    without_privilege_nothing_is_called_good_that_was_not_tried(&scene).unwrap();
    beside_the_running_node(&mut scene).unwrap();
}

fn a_host_in_order_has_no_problem(scene: &Scene) {
    let report = scene.report().expect("a report");

    assert_eq!(
        (&report.json["problems"], report.exit),
        (&0.into(), Some(0)),
        "{}",
        report.json
    );
    for check in [
        "configuration",
        "node",
        "key",
        "capabilities",
        "tun",
        "programs",
        "hook",
        "gateway_program",
        "rp_filter",
        "forwarding",
        "ipv6",
        "tcp_buffers",
        "peer_route",
        "device",
        "offloads",
        "mtu",
        "address",
        "listen",
        "metrics",
        "firewall",
        "descriptors",
        "memory",
    ] {
        assert_eq!(report.verdict(check), "ok", "{check}: {}", report.json);
    }
    for check in ["kernel_version", "btf", "bpffs", "quic_buffers", "clock"] {
        assert_ne!(report.verdict(check), "problem", "{check}: {}", report.json);
    }
    // Nobody answers at the peer's address.
    assert_eq!(report.verdict("path"), "unknown", "{}", report.json);
    // By which hook it is captured shows once a node runs.
    assert_eq!(report.verdict("gateway"), "unknown", "{}", report.json);
}

fn settings(scene: &Scene) -> Result<()> {
    scene.sh("sysctl -w net.ipv4.conf.all.rp_filter=1")?;
    scene.fixed("rp_filter", "", "warning")?;
    scene.sh("sysctl -w net.ipv4.tcp_rmem='4096 131072 212992'")?;
    scene.fixed("tcp_buffers", "tcp_rmem", "warning")?;
    scene.sh("sysctl -w net.ipv4.ip_forward=0")?;
    scene.fixed("forwarding", "ipv4", "problem")?;
    scene.sh("sysctl -w net.ipv6.conf.default.disable_ipv6=1")?;
    scene.fixed("ipv6", "", "problem")
}

fn files(scene: &Scene) -> Result<()> {
    let key = scene.pair.a.node.key();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    scene.fixed("key", "", "problem")?;
    let kept = key.with_extension("kept");
    fs::rename(&key, &kept)?;
    scene.fixed("key", "", "problem")?;
    fs::rename(&kept, &key)?;
    named(scene)?;
    fs::write(scene.pair.a.node.socket(), "no socket")?;
    scene.fixed("node", "", "problem")?;
    let taken = scene.pair.a.host.bind(|| TcpListener::bind("0.0.0.0:4001"))?;
    scene.found("listen", "tcp/4001")?;
    drop(taken);
    let report = scene.report()?;
    ensure!(report.finding("listen", "tcp/4001")?["verdict"] == "ok");
    let taken = scene.pair.a.host.bind(|| TcpListener::bind(METRICS))?;
    scene.found("metrics", METRICS)?;
    drop(taken);
    Ok(())
}

/// What the configuration names is missed by `check --live` too, which says what to do.
fn named(scene: &Scene) -> Result<()> {
    let check = || {
        let mut command = scene.pair.a.host.command(NODE);
        command.args(["check", "--live", "--config"]);
        output(command.arg(scene.pair.a.node.config()), LIMIT)
    };
    let right = check()?;
    ensure!(right.status.success(), "{right:?}");
    for (name, field, (broken, fix)) in [
        ("token", "metrics.token_file", (0o644, "chmod 600 ")),
        ("hook", "hooks.up", (0o644, "chmod +x ")),
    ] {
        let path = scene.pair.directory().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(broken))?;
        let wrong = check()?;
        let said = String::from_utf8_lossy(&wrong.stdout);
        let expected = format!("{fix}{}", path.display());
        ensure!(
            wrong.status.code() == Some(2) && said.contains(field) && said.contains(&expected),
            "{wrong:?}"
        );
        scene.fixed(field, name, "problem")?;
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept)?;
        scene.found(field, name)?;
        fs::rename(&kept, &path)?;
    }
    Ok(())
}

fn interfaces(scene: &Scene) -> Result<()> {
    let host = &scene.pair.a.host;
    host.ip(&["link", "add", &scene.pair.a.config.device, "type", "veth"])?;
    scene.fixed("device", "", "problem")?;
    scene.sh("ethtool -K u0 tso off gso off")?;
    scene.fixed("offloads", "u0", "warning")?;
    host.ip(&["link", "set", "u0", "mtu", "1240"])?;
    scene.fixed("mtu", "u0", "problem")?;
    host.ip(&["link", "set", "u0", "mtu", "1500"])?;
    host.ip(&["route", "del", "192.0.2.0/24", "dev", "u0"])?;
    scene.found("peer_route", "192.0.2.2")?;
    host.ip(&["route", "add", "192.0.2.0/24", "dev", "u0"])?;
    let elsewhere = format!("{}/32", scene.pair.a.v4);
    host.ip(&["address", "add", &elsewhere, "dev", GATEWAY])?;
    scene.fixed("address", &scene.pair.a.v4.to_string(), "problem")?;
    host.ip(&["address", "add", "10.0.0.9/8", "dev", GATEWAY])?;
    let report = scene.report()?;
    let finding = report.finding("address", &scene.pair.a.v4.to_string())?;
    ensure!(finding["verdict"] == "warning", "{finding}");
    host.ip(&["address", "del", "10.0.0.9/8", "dev", GATEWAY])?;
    host.ip(&["link", "set", GATEWAY, "down"])?;
    let report = scene.report()?;
    let finding = report.finding("gateway", GATEWAY)?;
    ensure!(
        finding["fix"] == format!("ip link set dev {GATEWAY} up"),
        "{finding}"
    );
    host.ip(&["link", "set", GATEWAY, "up"])?;
    Ok(())
}

fn firewall(scene: &Scene) -> Result<()> {
    scene.sh(
        "nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; \
         add rule inet filter input ct state established,related accept; \
         add rule inet filter input iifname lo accept; \
         add rule inet filter input udp dport { 53, 4000-4010 } accept'",
    )?;
    scene.fixed("firewall", "tcp/", "problem")?;
    let report = scene.report()?;
    ensure!(
        report.finding("firewall", "udp/")?["verdict"] == "ok",
        "{}",
        report.json
    );
    scene.sh("nft 'flush chain inet filter input; add rule inet filter input ip saddr 192.0.2.2 accept'")?;
    let report = scene.report()?;
    for port in ["tcp/", "udp/"] {
        let finding = report.finding("firewall", port)?;
        ensure!(finding["verdict"] == "unknown", "{finding}");
    }
    scene.sh("nft delete table inet filter")?;
    scene.sh(
        "nft 'add table inet out; add chain inet out output { type filter hook output priority 0; policy drop; }; \
         add rule inet out output ct state established,related accept; \
         add rule inet out output oifname lo accept'",
    )?;
    scene.fixed("firewall", "out to tcp/", "problem")?;
    scene.fixed("firewall", "through", "problem")?;
    scene.sh("nft delete table inet out")?;
    Ok(())
}

fn configuration(scene: &Scene) -> Result<()> {
    let file = scene.pair.directory().join("wrong.toml");
    fs::write(
        &file,
        "[device]\nname = \"a b\"\naddresses = [\"10.42.0.1/24\"]\n",
    )?;
    let name = file.to_str().context("a path of ASCII")?;
    let wrong = Report::read(&output(&mut scene.command(&["--json", "--config", name]), LIMIT)?)?;
    ensure!(
        (wrong.verdict("configuration"), wrong.exit) == ("problem", Some(1)),
        "{}",
        wrong.json
    );
    let defaults = Report::read(&output(&mut scene.command(&["--json"]), LIMIT)?)?;
    ensure!(
        defaults.verdict("configuration") == "warning",
        "{}",
        defaults.json
    );
    ensure!(
        defaults.finding("device", "sr0")?["verdict"] == "ok",
        "{}",
        defaults.json
    );
    let usage = output(&mut scene.command(&["--all"]), LIMIT)?;
    ensure!(usage.status.code() == Some(2));
    Ok(())
}

fn without_privilege_nothing_is_called_good_that_was_not_tried(scene: &Scene) -> Result<()> {
    let config = scene.pair.a.node.config();
    let mut command = scene.pair.a.host.command("setpriv");
    command.args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        NODE,
        "doctor",
        "--json",
        "--config",
    ]);
    let report = Report::read(&output(command.arg(&config), LIMIT)?)?;

    ensure!(report.exit == Some(1), "{}", report.json);
    for (check, verdict) in [
        ("capabilities", "problem"),
        ("tun", "unknown"),
        ("programs", "problem"),
        ("firewall", "unknown"),
        ("configuration", "ok"),
        ("peer_route", "ok"),
    ] {
        ensure!(report.verdict(check) == verdict, "{check}: {}", report.json);
    }
    ensure!(report.finding("hook", "").is_err(), "{}", report.json);
    Ok(())
}

fn beside_the_running_node(scene: &mut Scene) -> Result<()> {
    scene.pair.start_nodes()?;

    let report = scene.report()?;

    ensure!(report.exit == Some(0), "{}", report.json);
    for (check, said) in [
        ("node", "1 of 1 peers connected"),
        ("listen", "served by the running node"),
        ("metrics", "served by the running node"),
        ("peers", "1 of 1 are there"),
        ("descriptors", " are open"),
        ("memory", "the node has "),
        ("device", "the running node's, MTU 1420"),
        ("gateway", "captured by TC, behind GRO, by ring buffer"),
        ("path", "a full segment of 1448 bytes arrives"),
        ("qdisc", "the kernel's own choice"),
    ] {
        let finding = report.finding(check, "")?;
        ensure!(finding["verdict"] == "ok", "{finding}");
        ensure!(
            finding["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(said)),
            "{finding}"
        );
    }
    let device = &scene.pair.a.config.device;
    // The node sets its own again, until it gives in.
    until("another MTU stays", LIMIT, || {
        scene.pair.a.host.ip(&["link", "set", device, "mtu", "1400"])?;
        Ok(scene.pair.a.node.log()?.contains("time and again").then_some(()))
    })?;
    scene.fixed("device", "", "warning")?;
    scene.sh(&format!(
        "tc qdisc replace dev {device} root tbf rate 1mbit burst 10kb latency 50ms"
    ))?;
    scene.fixed("qdisc", "", "warning")?;
    let config = scene.pair.a.node.config();
    let config = config.to_str().context("a path of ASCII")?;
    let lines = text(&mut scene.command(&["--config", config]), LIMIT)?;
    ensure!(lines.contains("\nok       peer_route "), "{lines}");
    ensure!(lines.contains("0 problems, "), "{lines}");

    scene.pair.b.node.stop(Signal::SIGTERM)?;
    let (a, b) = (&scene.pair.a.node, &scene.pair.b.node);
    let lost = |status: &xtask::lab::Status| !status.is_connected(b.peer_id());
    a.wait_for("the connection is gone", LIMIT, lost)?;
    scene.found("peers", "")?;
    let report = scene.report()?;
    let finding = report.finding("peer", b.peer_id())?;
    ensure!(finding["verdict"] == "warning", "{finding}");
    Ok(())
}
