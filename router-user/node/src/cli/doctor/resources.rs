//! Checks descriptors and memory: of the running node, or of a node that would be started from here.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt};

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;
use crate::cli::status::memory_line;
use crate::config::{Config, free_memory, kibibytes};
use crate::control::MemoryStatus;
use crate::node::memory_status;

/// Descriptors that a node without peers has: maps, programs, rings, sockets, threads' wake-ups.
const OWN_DESCRIPTORS: u64 = 256;

/// Descriptors for each peer: its connections, and attempts to make one.
const DESCRIPTORS_PER_PEER: u64 = 8;

/// Memory of a node without its maps, in bytes: program, threads, connections that are half open.
const OWN_MEMORY: u64 = 96 << 20;

/// Memory that a flow takes in the node's cache of flows, in bytes.
const CACHED_BYTES_PER_FLOW: u64 = 16;

/// Checks the running node's descriptors and memory, or those that a node would have.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    match &input.running {
        RunningNode::Yes(status) => match process_of(input.config.node().control()) {
            Some(process) => vec![descriptors_of(&process), memory_of(&process, &status.memory)],
            None => vec![Finding::unknown(
                "descriptors",
                "the node's process cannot be told",
            )],
        },
        RunningNode::No | RunningNode::Unknown => vec![
            judge_descriptors(
                getrlimit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard),
                needed_descriptors(&input.config),
            ),
            judge_memory(
                free_memory(Path::new("/proc/self")),
                needed_memory(&input.config),
                &memory_status(&input.config),
            ),
        ],
    }
}

/// Returns the directory in `/proc` of the process that listens at `socket`.
fn process_of(socket: &Path) -> Option<PathBuf> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let process = getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid();
    (process > 0).then(|| PathBuf::from(format!("/proc/{process}")))
}

fn needed_descriptors(config: &Config) -> u64 {
    OWN_DESCRIPTORS + DESCRIPTORS_PER_PEER * config.peers().len() as u64
}

fn needed_memory(config: &Config) -> u64 {
    let memory = memory_status(config);
    let rings = u64::from(memory.ring_bytes) * u64::from(config.workers().initial());
    let cache = CACHED_BYTES_PER_FLOW * u64::from(memory.max_flows);
    OWN_MEMORY + rings + memory.table_bytes + memory.received_table_bytes + cache + memory.peers_bytes
}

fn judge_descriptors(limit: nix::Result<u64>, needed: u64) -> Finding {
    const CHECK: &str = "descriptors";
    match limit {
        Ok(limit) if limit < needed => Finding::warning(
            CHECK,
            format!("no more than {limit}: with all its peers a node has up to {needed}"),
        )
        .fix(format!("ulimit -n {}", needed.next_power_of_two())),
        Ok(limit) => Finding::ok(CHECK, format!("up to {limit}")),
        Err(errno) => Finding::unknown(CHECK, format!("the kernel does not say: {errno}")),
    }
}

fn descriptors_of(process: &Path) -> Finding {
    const CHECK: &str = "descriptors";
    let limits = fs::read_to_string(process.join("limits")).unwrap_or_default();
    let open = fs::read_dir(process.join("fd")).map(Iterator::count);
    match (open, soft_limit(&limits)) {
        (Ok(open), Some(limit)) => judge_open(open as u64, limit),
        (Err(error), _) => Finding::unknown(CHECK, format!("those of the node cannot be seen: {error}")),
        (_, None) => Finding::unknown(CHECK, "the kernel does not say the node's limit"),
    }
}

fn judge_open(open: u64, limit: u64) -> Finding {
    const CHECK: &str = "descriptors";
    if open * 5 > limit * 4 {
        Finding::problem(
            CHECK,
            format!("{open} of {limit} are open: soon no connection can be made"),
        )
        .fix("systemctl edit stream-router # LimitNOFILE=")
    } else {
        Finding::ok(CHECK, format!("{open} of {limit} are open"))
    }
}

/// Reads the soft limit of descriptors out of `/proc/PID/limits`.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn memory_of(process: &Path, sizes: &MemoryStatus) -> Finding {
    const CHECK: &str = "memory";
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let Some(used) = kibibytes(&status, "VmRSS:") else {
        return Finding::unknown(CHECK, "the kernel does not say how much the node has");
    };
    let used = format!("the node has {} MiB", used >> 20);
    let sizes = memory_line(sizes);
    match free_memory(process) {
        Some(free) if free < OWN_MEMORY / 4 => Finding::problem(
            CHECK,
            format!(
                "{used}, and no more than {} MiB are left for it ({sizes})",
                free >> 20
            ),
        )
        .fix("systemctl edit stream-router # MemoryMax="),
        Some(free) => Finding::ok(
            CHECK,
            format!("{used}, and could have {} MiB more ({sizes})", free >> 20),
        ),
        None => Finding::unknown(CHECK, "the kernel does not say how much is free"),
    }
}

fn judge_memory(free: Option<u64>, needed: u64, sizes: &MemoryStatus) -> Finding {
    const CHECK: &str = "memory";
    let (needed_mib, sizes) = (needed >> 20, memory_line(sizes));
    match free {
        Some(free) if free < needed => Finding::warning(
            CHECK,
            format!(
                "{} MiB are free, and a node has up to {needed_mib} MiB ({sizes}); connections.max_entries and \
                 workers.queue_size make it less",
                free >> 20
            ),
        ),
        Some(free) => Finding::ok(
            CHECK,
            format!(
                "{} MiB are free, and a node has up to {needed_mib} MiB ({sizes})",
                free >> 20
            ),
        ),
        None => Finding::unknown(CHECK, "the kernel does not say how much is free"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn limits_that_are_near_are_named() {
        assert_eq!(judge_descriptors(Ok(1024), 264).verdict, Verdict::Ok);
        assert_eq!(judge_descriptors(Ok(1024), 8256).verdict, Verdict::Warning);
        assert_eq!(judge_open(100, 1024).verdict, Verdict::Ok);
        assert_eq!(judge_open(1000, 1024).verdict, Verdict::Problem);
        let sizes = MemoryStatus::default();
        let memory = |free, needed| judge_memory(free, needed, &sizes).verdict;
        assert_eq!(memory(Some(64 << 20), 128 << 20), Verdict::Warning);
        assert_eq!(memory(Some(256 << 20), 128 << 20), Verdict::Ok);
        assert_eq!(memory(None, 1), Verdict::Unknown);
    }

    #[test]
    fn a_node_of_many_peers_needs_more() {
        let text = "[device]\naddresses = ['10.42.0.1/24']\n".to_owned();
        let peer = |n: usize| {
            let id = crate::config::tests::IDS[n];
            format!("[[peer]]\nid = '{id}'\nallowed_ips = ['10.{n}.0.0/16']\n")
        };
        let needed = |text: &str| needed_memory(&Config::parse(text, Path::new("sr.toml")).unwrap());
        let with_two = text.clone() + &peer(0) + &peer(1);

        assert_eq!(needed(&with_two) - needed(&text), 2 * 15_044);
    }

    #[test]
    fn what_the_kernel_says_of_this_process_is_understood() {
        let own = Path::new("/proc/self");
        assert_eq!(descriptors_of(own).verdict, Verdict::Ok);
        assert_eq!(memory_of(own, &MemoryStatus::default()).verdict, Verdict::Ok);
        assert_eq!(
            soft_limit("Max open files            unlimited            unlimited   files"),
            Some(u64::MAX)
        );
        assert_eq!(
            soft_limit("Max open files            1024                 524288      files"),
            Some(1024)
        );
        assert_eq!(soft_limit(""), None);
    }
}
