//! The package on a system that has nothing else: it installs, its service carries packets without root, and it goes.

mod files;
mod managed;
mod readme;
mod readme_nat;
mod tunnels;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::service_manager::ServiceManager;
use crate::support::unit::Unit;
use crate::support::{NODE, machine};
use xtask::dist::{self, PackagePlan, Packages, Packing, Version};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{output, signal, wait};
use xtask::lab::{CleanRoot, Namespace, ScratchDir, Traces, link};

const LIMIT: Duration = Duration::from_secs(30);
const CONFIG: &str = "etc/stream-router.toml";

#[test]
fn an_installed_package_runs_as_its_unit_says_and_leaves_nothing() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("package").unwrap();
    let packages = packages().unwrap();
    let root = CleanRoot::for_package(&packages.deb).unwrap();
    let before = Traces::of(&root).unwrap();

    root.install(&packages.deb).unwrap();
    let unit = Unit::installed(&root).unwrap();
    assert_eq!(
        unit.value("RestartPreventExitStatus").unwrap(),
        code_of_wrong_configuration(&root).unwrap(),
        "a node with a wrong configuration is not started again and again"
    );
    let roots = [root.twin().unwrap(), root];
    let peer_ids = roots.each_ref().map(|root| {
        let printed = root.run(&["stream-router", "keygen"]).unwrap();
        printed.trim().to_owned()
    });
    configure(&roots[0], 1, &peer_ids[1]).unwrap();
    configure(&roots[1], 2, &peer_ids[0]).unwrap();
    let hosts = [Namespace::unique("a").unwrap(), Namespace::unique("b").unwrap()];
    link(
        (&hosts[0], "u0", &["192.0.2.1/24"]),
        (&hosts[1], "u0", &["192.0.2.2/24"]),
    )
    .unwrap();
    let mut nodes = [0, 1].map(|side: usize| {
        let log = scratch.path().join(format!("{side}.log"));
        Running::start(&unit, &roots[side], &hosts[side], log).unwrap()
    });

    for node in &nodes {
        node.hear("STATUS=1 of 1 peers connected").unwrap();
    }
    for (host, peer) in [(&hosts[0], "10.42.0.2"), (&hosts[1], "fd42::1")] {
        let ping = PingPlan::new(peer.parse().unwrap()).run(host).unwrap();
        assert_eq!(ping.n_lost(), 0, "{peer}");
    }
    let given = unit.value("AmbientCapabilities").unwrap();
    let held = Privileges::of(&nodes[0].process).unwrap();
    assert!(
        !held.uids.split_whitespace().any(|uid| uid == "0"),
        "{}",
        held.uids
    );
    assert_eq!(held.effective, held.bounding);
    assert_eq!(
        held.effective.count_ones() as usize,
        given.split_whitespace().count()
    );
    let status = roots[0].run(&["stream-router", "status", "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["pins"], "/sys/fs/bpf/stream-router/sr0", "{status}");
    for node in &mut nodes {
        signal(&node.process, Signal::SIGTERM).unwrap();
        node.hear("STOPPING=1").unwrap();
        assert!(wait(&mut node.process, LIMIT).unwrap().success());
    }

    roots[1].run(&["dpkg", "--purge", "stream-router"]).unwrap();
    let after = Traces::of(&roots[1]).unwrap();
    let left: Vec<_> = after.files.difference(&before.files).collect();
    assert_eq!(left, Vec::<&String>::new());
    assert_eq!(after.users, before.users);
}

/// Returns packages that all tests share: they take longer to make than to try.
fn packages() -> Result<&'static Packages> {
    static PACKAGES: OnceLock<Result<Packages, String>> = OnceLock::new();
    let packages = PACKAGES.get_or_init(|| {
        let made = ScratchDir::until_the_end("packages").and_then(package);
        made.map_err(|error| format!("{error:#}"))
    });
    packages.as_ref().map_err(|error| anyhow!(error.clone()))
}

fn package(out: &Path) -> Result<Packages> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    dist::package(&PackagePlan {
        workspace: workspace.context("the package is in a workspace")?,
        binary: Path::new(NODE),
        printer: Path::new(NODE),
        out,
        version: &Version::new("0.1.0+test", 1_790_000_000),
        packing: Packing::Fast,
        sign: None,
    })
}

/// The configuration that was installed, with another address and one peer.
fn configure(root: &CleanRoot, number: u8, peer_id: &str) -> Result<()> {
    let path = root.path().join(CONFIG);
    let installed = fs::read_to_string(&path)?;
    let addresses = r#"addresses = ["10.42.0.1/24", "fd42::1/64"]"#;
    ensure!(installed.contains(addresses), "{installed}");
    let own = format!(r#"addresses = ["10.42.0.{number}/24", "fd42::{number}/64"]"#);
    let other = 3 - number;
    let peer = format!(
        "\n[[peer]]\nid = {peer_id:?}\naddresses = [\"/ip4/192.0.2.{other}/tcp/4001\"]\n\
         allowed_ips = [\"10.42.0.{other}/32\", \"fd42::{other}/128\"]\n"
    );
    fs::remove_file(&path)?;
    fs::write(&path, installed.replace(addresses, &own) + &peer)?;
    root.run(&["stream-router", "check", "--config", "/etc/stream-router.toml"])?;
    Ok(())
}

/// The exit code of a node that cannot start for its configuration.
fn code_of_wrong_configuration(root: &CleanRoot) -> Result<String> {
    let wrong = root.path().join("tmp/wrong.toml");
    fs::write(&wrong, "[device]\naddresses = 7\n")?;
    let mut command = Command::new("chroot");
    command.arg(root.path());
    command.args(["stream-router", "run", "--config", "/tmp/wrong.toml"]);
    let ended = output(&mut command, LIMIT)?.status;
    fs::remove_file(wrong)?;
    Ok(ended.code().context("it ended by itself")?.to_string())
}

/// Fields of the kernel's view of a process.
struct Privileges {
    uids: String,
    effective: u64,
    bounding: u64,
}

impl Privileges {
    fn of(process: &Child) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .with_context(|| format!("no {name} in {status}"))
        };
        Ok(Self {
            uids: field("Uid:")?,
            effective: u64::from_str_radix(&field("CapEff:")?, 16)?,
            bounding: u64::from_str_radix(&field("CapBnd:")?, 16)?,
        })
    }
}

/// A node that runs as the unit says.
struct Running {
    process: Child,
    manager: ServiceManager,
    log: PathBuf,
}

impl Running {
    fn start(unit: &Unit, root: &CleanRoot, host: &Namespace, log: PathBuf) -> Result<Self> {
        unit.make_directories(root)?;
        let manager = ServiceManager::listen(&root.path().join("run/notify"))?;
        let process = unit.start(root, host, &log)?;
        Ok(Self {
            process,
            manager,
            log,
        })
    }

    fn hear(&self, line: &str) -> Result<String> {
        let heard = self.manager.wait_for(line, LIMIT);
        heard.with_context(|| fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
