//! How much memory a process may have, and the sizes of tables and rings that follow from it.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use stream_router::config::StreamRouterConfig;

/// Flows for each MiB: the table of them, at [`BYTES_PER_ENTRY`] and [`BYTES_PER_BUCKET`], takes 2 % of the memory, and what
/// is counted of them from peers up to 1 %.
const FLOWS_PER_MIB: u64 = 128;

/// Fewest flows that are chosen. The kernel keeps up to 128 free entries for each CPU, which should not be all there are.
const MIN_FLOWS: u64 = 8192;

/// Packets for each MiB that may wait for a worker: the rings of the default 8 take 0.8 % of the memory.
const PACKETS_PER_MIB: (u64, u64) = (1, 2);

/// Fewest packets that are chosen to wait for a worker: eight super-packets.
const MIN_PACKETS: u64 = 256;

/// Most packets that are chosen to wait for a worker: their ring of 4 MiB has room for what a sender writes at a gigabyte
/// a second until the scheduler's next tick (4 ms), as it may not give way to the worker before.
const MAX_PACKETS: u32 = 2000;

/// What an entry of the connection table takes in the kernel: `struct htab_elem`, key and value, all made at the start
/// (kernel: `kernel/bpf/hashtab.c`).
const BYTES_PER_ENTRY: u64 = 144;
const BYTES_PER_BUCKET: u64 = 16;

/// What a peer takes of the process: with 16,384 of two networks each it has 243 MB more than with 3.
const BYTES_PER_PEER: u64 = 15_000;

/// What a network of a peer takes of the kernel's prefix table (kernel: `struct lpm_trie_node`).
const BYTES_PER_PREFIX: u64 = 44;

/// Where the control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// The most memory that a process can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Number of bytes.
    pub bytes: u64,
    /// The control group that allows no more; `None` if the host has no more.
    pub group: Option<PathBuf>,
}

impl MemoryLimit {
    /// Returns the limit of this process, as it was when it was first asked for: what follows from it stays as it is in a
    /// running node. `None` if the kernel does not say it.
    pub fn own() -> Option<&'static Self> {
        static OWN: OnceLock<Option<MemoryLimit>> = OnceLock::new();
        OWN.get_or_init(|| {
            let host = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
            Some(Self::least(host, &groups_of(Path::new("/proc/self"))))
        })
        .as_ref()
    }

    fn least(host: u64, groups: &[Group]) -> Self {
        let limited = groups
            .iter()
            .filter_map(|group| Some((group.limit()?, &group.directory)));
        match limited.min_by_key(|(bytes, _)| *bytes) {
            Some((bytes, directory)) if bytes < host => Self {
                bytes,
                group: Some(directory.clone()),
            },
            _ => Self {
                bytes: host,
                group: None,
            },
        }
    }
}

/// The sizes of what is made once, at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Flows in the connection table.
    pub(super) max_entries: u32,
    /// Packets that may wait for a worker.
    pub(super) queue_size: u32,
}

impl Sizes {
    /// Returns the sizes for a node that may have so many bytes.
    pub(super) fn within(bytes: u64) -> Self {
        let mib = bytes >> 20;
        let defaults = StreamRouterConfig::default();
        let size = |wanted: u64, least: u64, most: u32| wanted.clamp(least, most.into()) as u32;
        let (packets, mibs) = PACKETS_PER_MIB;
        Self {
            max_entries: size(
                mib.saturating_mul(FLOWS_PER_MIB),
                MIN_FLOWS,
                defaults.connections().max_entries(),
            ),
            queue_size: size(mib.saturating_mul(packets) / mibs, MIN_PACKETS, MAX_PACKETS),
        }
    }
}

/// Returns how many bytes the kernel's connection table takes, from the start on.
pub fn table_bytes(max_entries: u32) -> u64 {
    let n = u64::from(max_entries);
    n * BYTES_PER_ENTRY + n.next_power_of_two() * BYTES_PER_BUCKET
}

/// Returns how many bytes peers take about, of the process and of the kernel's prefix table.
pub fn peers_bytes(n_peers: usize, n_prefixes: usize) -> u64 {
    n_peers as u64 * BYTES_PER_PEER + n_prefixes as u64 * BYTES_PER_PREFIX
}

/// Returns how many bytes a process, by its directory in `/proc`, can have more: what the host has free, or what its
/// control groups allow. `None` if the kernel does not say it.
pub fn free_memory(process: &Path) -> Option<u64> {
    let host = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = groups_of(process);
    Some(groups.iter().filter_map(Group::free).fold(host, u64::min))
}

/// Reads a value of kibibytes out of a file of `/proc`, in bytes.
pub fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// A control group that counts memory, of either version.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    files: &'static GroupFiles,
}

/// The files that a control group has.
#[derive(Debug, PartialEq, Eq)]
struct GroupFiles {
    /// The most that its processes get, also if they are only slowed down above it.
    limits: &'static [&'static str],
    used: &'static str,
    /// What in `memory.stat` is given back when it is needed.
    cache: &'static str,
}

const FIRST: GroupFiles = GroupFiles {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};

const SECOND: GroupFiles = GroupFiles {
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cache: "inactive_file ",
};

impl Group {
    fn limit(&self) -> Option<u64> {
        // "max" is no number, and no limit.
        self.files
            .limits
            .iter()
            .filter_map(|file| self.number(file))
            .min()
    }

    fn free(&self) -> Option<u64> {
        let used = self.number(self.files.used)?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.files.cache));
        let cache = cache.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Some(self.limit()?.saturating_sub(used.saturating_sub(cache)))
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.directory.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

/// Returns the control groups of a process that count memory, each with those that it is in.
fn groups_of(process: &Path) -> Vec<Group> {
    let listed = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    groups(&listed, Path::new(GROUPS))
}

/// Returns the control groups that `/proc/PID/cgroup` names. Some of them need not be there: a container sees its own as
/// the root, whatever their names are outside.
fn groups(listed: &str, root: &Path) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in listed.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, files) = if controllers.is_empty() {
            (root.to_owned(), &SECOND)
        } else if controllers.split(',').any(|one| one == "memory") {
            (root.join("memory"), &FIRST)
        } else {
            continue;
        };
        // What is outside of the container is named by `..`.
        let inside = Path::new(name)
            .components()
            .filter(|component| matches!(component, Component::Normal(_)));
        let group = mount.join(inside.collect::<PathBuf>());
        let around = group.ancestors().take_while(|group| group.starts_with(&mount));
        groups.extend(around.map(|directory| Group {
            directory: directory.to_owned(),
            files,
        }));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A directory of control groups that goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn with(test: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("sr-groups-{test}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }

        fn limit(&self, listed: &str, host: u64) -> MemoryLimit {
            MemoryLimit::least(host, &groups(listed, &self.0))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn sizes_follow_memory_between_bounds() {
        let sizes = |mib: u64| {
            let sizes = Sizes::within(mib * MIB);
            (sizes.max_entries, sizes.queue_size)
        };

        assert_eq!(sizes(0), (8192, 256));
        assert_eq!(sizes(64), (8192, 256));
        assert_eq!(sizes(128), (16_384, 256));
        assert_eq!(sizes(256), (32_768, 256));
        assert_eq!(sizes(1024), (131_072, 512));
        assert_eq!(sizes(2048), (262_144, 1024));
        assert_eq!(sizes(4096), (262_144, 2000));
        assert_eq!(sizes(1 << 20), (262_144, 2000));
        assert_eq!(Sizes::within(u64::MAX), Sizes::within(4096 * MIB));
    }

    #[test]
    fn tables_and_rings_take_a_small_share_of_the_memory_that_sets_their_sizes() {
        for mib in [512, 1024, 2048, 2049, 4096, 1 << 14] {
            let sizes = Sizes::within(mib * MIB);
            let rings = 8 * (u64::from(sizes.queue_size) * 2048).next_power_of_two();
            let taken = table_bytes(sizes.max_entries) + rings;
            assert!(taken * 100 <= mib * MIB * 3, "{taken} of {mib} MiB");
        }
    }

    #[test]
    fn the_least_limit_of_all_groups_around_a_process_counts() {
        let root = Root::with(
            "second",
            &[
                ("memory.max", "max\n"),
                ("a/memory.max", "1000\n"),
                ("a/memory.high", "900\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.high", "950\n"),
            ],
        );

        let inner = root.limit("0::/a/b\n", 5000);
        let outer = root.limit("0::/\n", 5000);
        let small_host = root.limit("0::/a/b\n", 800);

        assert_eq!((inner.bytes, inner.group), (900, Some(root.0.join("a"))));
        assert_eq!((outer.bytes, outer.group), (5000, None));
        assert_eq!((small_host.bytes, small_host.group), (800, None));
    }

    #[test]
    fn groups_of_the_first_version_and_of_a_container_are_found() {
        let root = Root::with(
            "first",
            &[
                ("memory/memory.limit_in_bytes", "700\n"),
                ("memory/memory.usage_in_bytes", "600\n"),
                ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 200\n"),
            ],
        );
        let listed = "9:name=systemd:/\n4:cpu,memory:/docker/0123\n1:cpu:/\n0::/\n";

        let limit = root.limit(listed, 5000);
        let free = groups(listed, &root.0).iter().find_map(Group::free);

        assert_eq!((limit.bytes, limit.group), (700, Some(root.0.join("memory"))));
        assert_eq!(free, Some(300));
    }

    #[test]
    fn a_name_that_leads_out_of_the_groups_does_not() {
        let found = groups("0::/../../etc\n", Path::new("/groups"));

        let directories: Vec<_> = found
            .iter()
            .map(|group| group.directory.to_str().unwrap())
            .collect();
        assert_eq!(directories, ["/groups/etc", "/groups"]);
        assert_eq!(groups("nonsense\n\n7:cpu:/x\n", Path::new("/groups")), []);
    }

    #[test]
    fn the_kernel_says_how_much_this_process_may_have() {
        let limit = MemoryLimit::own().expect("a limit");
        assert!(limit.bytes > 0);
        assert!(free_memory(Path::new("/proc/self")).is_some_and(|free| free <= limit.bytes));
    }
}
