//! Checks the running kernel: version, types, BPF file system, JIT.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::finding::Finding;
use crate::kernel::BPFFS;

/// Oldest kernel that runs the programs: `bpf_ringbuf_reserve_dynptr` came with it.
const MIN_VERSION: (u32, u32) = (5, 19);
/// First kernel into which UDP super-packets can be injected.
const UDP_OFFLOAD_VERSION: (u32, u32) = (6, 2);

const BTF: &str = "/sys/kernel/btf/vmlinux";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Checks what can be told without a trial.
pub(super) fn check() -> Vec<Finding> {
    let release = nix::sys::utsname::uname().ok();
    let release = release.map(|name| name.release().to_string_lossy().into_owned());
    let mut findings = vec![
        judge_version(release.as_deref().unwrap_or_default()),
        judge_btf(Path::new(BTF).exists()),
        judge_bpffs(statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)),
    ];
    // Not there in a network namespace of one's own, nor where it is always on.
    if let Ok(jit) = fs::read_to_string(JIT) {
        findings.push(judge_jit(jit.trim()));
    }
    findings
}

fn judge_version(release: &str) -> Finding {
    const CHECK: &str = "kernel_version";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::unknown(CHECK, format!("{release:?} is no version of Linux"));
    };
    let version: (u32, u32) = (major, minor);
    if version < MIN_VERSION {
        return Finding::problem(
            CHECK,
            format!(
                "Linux {release}; {}.{} or newer is needed",
                MIN_VERSION.0, MIN_VERSION.1
            ),
        );
    }
    if version < UDP_OFFLOAD_VERSION {
        return Finding::warning(
            CHECK,
            format!(
                "Linux {release}; from {}.{} on, UDP comes out of the tunnel many packets at a time, before that the node \
                 cuts it into its packets (`rx_segmented`)",
                UDP_OFFLOAD_VERSION.0, UDP_OFFLOAD_VERSION.1
            ),
        );
    }
    Finding::ok(CHECK, format!("Linux {release}"))
}

fn judge_btf(is_there: bool) -> Finding {
    const CHECK: &str = "btf";
    if is_there {
        Finding::ok(CHECK, format!("types of the kernel at {BTF}"))
    } else {
        Finding::warning(
            CHECK,
            format!(
                "no {BTF}: the kernel was built without CONFIG_DEBUG_INFO_BTF; see packet_offloads, and bpftool shows less"
            ),
        )
    }
}

fn judge_bpffs(is_mounted: bool) -> Finding {
    const CHECK: &str = "bpffs";
    if is_mounted {
        Finding::ok(CHECK, format!("mounted at {BPFFS}"))
    } else {
        Finding::warning(
            CHECK,
            format!(
                "no BPF file system at {BPFFS}: programs and maps are not pinned, bpftool cannot look at them"
            ),
        )
        .fix(format!("mount -t bpf bpf {BPFFS}"))
    }
}

fn judge_jit(value: &str) -> Finding {
    const CHECK: &str = "bpf_jit";
    match value {
        "0" => Finding::warning(
            CHECK,
            "eBPF programs are interpreted: each packet takes several times as long",
        )
        .fix("sysctl -w net.core.bpf_jit_enable=1"),
        _ => Finding::ok(CHECK, "eBPF programs are compiled"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, verdict) in [
            ("6.18.5-cloud-amd64", Verdict::Ok),
            ("6.2", Verdict::Ok),
            ("6.1.0-13", Verdict::Warning),
            ("5.19.0", Verdict::Warning),
            ("5.9.1", Verdict::Problem),
            ("4.20", Verdict::Problem),
            ("odd", Verdict::Unknown),
        ] {
            assert_eq!(judge_version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn what_only_costs_something_is_a_warning() {
        assert_eq!(judge_btf(true).verdict, Verdict::Ok);
        assert_eq!(judge_btf(false).verdict, Verdict::Warning);
        assert_eq!(judge_bpffs(true).verdict, Verdict::Ok);
        let bpffs = judge_bpffs(false);
        assert_eq!(bpffs.fix.as_deref(), Some("mount -t bpf bpf /sys/fs/bpf"));
        assert_eq!(judge_jit("1").verdict, Verdict::Ok);
        assert_eq!(judge_jit("0").verdict, Verdict::Warning);
    }
}
