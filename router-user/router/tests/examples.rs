//! Every example runs and ends well, within a limit.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "libp2p")]
use nix::sched::{CloneFlags, unshare};
#[cfg(feature = "libp2p")]
use rtnetlink::LinkUnspec;

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the example in a network namespace with nothing but loopback.
#[cfg(feature = "libp2p")]
fn run_in_own_network(name: &'static str) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own needs root");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().expect("netlink");
            let connection = tokio::spawn(connection);
            let up = LinkUnspec::new_with_index(1).up().build();
            let set = netlink.link().set(up).execute();
            tokio::time::timeout(LIMIT, set)
                .await
                .expect("in time")
                .expect("set lo up");
            connection.abort();
        });
        run(name);
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Cargo builds the examples with the tests, beside the directory of the tests.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("the path of this test");
    let directory = tests.ancestors().nth(2).expect("tests are in <profile>/deps");
    directory.join("examples").join(name)
}

fn run(name: &str) {
    let program = program(name);
    let mut child = Command::new(&program)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; build it: cargo build --examples", program.display()));
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("the state of a child") {
            assert!(status.success(), "{name}: {status}");
            return;
        }
        if Instant::now() > deadline {
            child.kill().expect("kill");
            child.wait().expect("it was killed");
            panic!("{name} did not end within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn packets_go_into_a_pool_in_memory() {
    run("in_memory");
}

#[cfg(feature = "libp2p")]
#[test]
fn two_routers_talk_over_libp2p_on_loopback() {
    run_in_own_network("two_routers");
}

#[test]
fn a_custom_discovery_is_asked() {
    run("custom_discovery");
}

#[test]
fn packets_of_a_tun_device_are_routed_without_ebpf() {
    run("tun_device");
}

#[test]
fn the_shortest_program_works_line_by_line() {
    run("usage");
}
