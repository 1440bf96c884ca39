//! What a node tells the service manager that started it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::support::service_manager::ServiceManager;
use crate::support::{NODE, machine};
use xtask::lab::process::{signal, until, wait};
use xtask::lab::{Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(20);
const CONNECTED: &str = "STATUS=1 of 1 peers connected";
/// The node says that it is alive three times within it.
const WATCHDOG: Duration = Duration::from_millis(600);

#[test]
fn a_node_is_ready_alive_while_its_threads_are_and_stopping() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("service").unwrap();
    let manager = ServiceManager::listen(&directory.path().join("notify")).unwrap();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("pair").unwrap(),
    )
    .unwrap();
    pair.b.node.start().unwrap();
    let mut node = pair
        .a
        .host
        .command(NODE)
        .args(["run", "--config"])
        .arg(pair.a.node.config())
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .spawn()
        .unwrap();

    let ready = manager.wait_for("READY=1", LIMIT).unwrap();
    assert!(ready.contains("STATUS="), "{ready}");
    assert!(pair.a.node.status().is_ok(), "a node that is ready answers");
    if !ready.contains(CONNECTED) {
        manager.wait_for(CONNECTED, LIMIT).unwrap();
    }
    manager.wait_for("WATCHDOG=1", LIMIT).unwrap();

    let data_thread = thread(node.id(), "sr-data-0").unwrap();
    ptrace::seize(data_thread, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(data_thread).unwrap();
    waitpid(data_thread, Some(WaitPidFlag::__WALL)).unwrap();
    // It may have shown a sign of life just before.
    until("the node is silent", LIMIT, || {
        Ok(manager.message(WATCHDOG)?.is_none().then_some(()))
    })
    .unwrap();
    assert_eq!(
        manager.message(WATCHDOG).unwrap(),
        None,
        "a node whose data thread hangs is not alive"
    );
    ptrace::detach(data_thread, None).unwrap();
    manager.wait_for("WATCHDOG=1", LIMIT).unwrap();

    signal(&node, Signal::SIGTERM).unwrap();
    manager.wait_for("STOPPING=1", LIMIT).unwrap();
    assert!(wait(&mut node, LIMIT).unwrap().success());
}

/// The thread of a process that has this name.
fn thread(process: u32, name: &str) -> Result<Pid> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim() == name {
            let id = task.file_name().to_string_lossy().parse()?;
            return Ok(Pid::from_raw(id));
        }
    }
    bail!("process {process} has no thread {name}")
}
