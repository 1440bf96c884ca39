//! Every example runs and ends well, within a limit.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[cfg(feature = "libp2p")]
use xtask::lab::Namespace;
use xtask::lab::process::text;

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Cargo builds the examples with the tests, beside the directory of the tests.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("the path of this test");
    let directory = tests.ancestors().nth(2).expect("tests are in <profile>/deps");
    directory.join("examples").join(name)
}

fn run(name: &str) {
    text(&mut Command::new(program(name)), LIMIT)
        .expect("the example is built (cargo build --examples) and ends well");
}

/// Runs the example in a network namespace with nothing but loopback.
#[cfg(feature = "libp2p")]
fn run_in_own_network(name: &str) {
    let host = Namespace::unique("example").expect("a network namespace of its own needs root");
    text(&mut host.command(program(name)), LIMIT)
        .expect("the example is built (cargo build --examples) and ends well");
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
