//! The day and the machine of a run.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use serde::Serialize;

use crate::command::read;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

const FLAGS: [&str; 14] = [
    "aes",
    "avx2",
    "avx512f",
    "erms",
    "fsrm",
    "hypervisor",
    "pclmulqdq",
    "pmull",
    "sha2",
    "sha_ni",
    "sse4_2",
    "sve",
    "vaes",
    "vpclmulqdq",
];

/// The machine of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// The day, in UTC.
    pub(super) date: String,
    /// The kernel's release.
    pub(super) kernel: String,
    /// The model name of the CPU.
    pub(super) cpu: String,
    /// What of the CPU's abilities matters to ciphers and copies, by the kernel's names.
    pub(super) cpu_flags: Vec<String>,
    /// CPUs that this process may use.
    pub(super) n_cpus: usize,
    /// Congestion control of the traffic's TCP, and of VPNs over TCP.
    pub(super) congestion_control: String,
}

impl Machine {
    pub(super) fn of_this_run() -> Result<Self> {
        let date = read(Command::new("date").args(["-u", "+%F"]))?;
        let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        Ok(Self {
            date: date.trim().to_owned(),
            kernel: uname()?.release().to_string_lossy().into_owned(),
            cpu: model(&cpus).unwrap_or("an unnamed CPU").to_owned(),
            cpu_flags: flags(&cpus),
            congestion_control: fs::read_to_string(CONGESTION_CONTROL)
                .with_context(|| format!("cannot read {CONGESTION_CONTROL}"))?
                .trim()
                .to_owned(),
            n_cpus: thread::available_parallelism()?.get(),
        })
    }
}

fn flags(cpuinfo: &str) -> Vec<String> {
    let names = cpuinfo.lines().find_map(|line| {
        let (name, flags) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then_some(flags)
    });
    let shown = names.into_iter().flat_map(str::split_whitespace);
    shown
        .filter(|flag| FLAGS.contains(flag))
        .map(str::to_owned)
        .collect()
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_first_cpus() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";

        assert_eq!(model(cpuinfo), Some("Some CPU @ 2.00GHz"));
        assert_eq!(model("processor\t: 0\n"), None);
    }

    #[test]
    fn flags_are_those_that_matter_on_any_architecture() {
        assert_eq!(
            flags("model name\t: X\nflags\t\t: fpu aes vaes\n"),
            ["aes", "vaes"]
        );
        assert_eq!(flags("Features\t: fp asimd aes pmull\n"), ["aes", "pmull"]);
        assert!(flags("processor\t: 0\n").is_empty());
    }
}
