//! Reads how long the machine's CPUs have worked, and how much memory a process holds.

use std::fs;

use anyhow::{Context, Result};

/// `USER_HZ`, the unit of /proc/stat on every architecture that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the CPU seconds that the machine has worked since it started: all time but idle, waiting for disks and
/// guests'.
pub(super) fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    busy_ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .context("/proc/stat begins with no line of all CPUs")
}

/// Returns the resident memory of a process in MiB.
pub(super) fn resident_mib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = resident_kib(&status).with_context(|| format!("{path} names no resident size"))?;
    Ok(kib / 1024.0)
}

/// Returns the ticks of work in a line of /proc/stat. Its fields are user, nice, system, idle, iowait, irq, softirq,
/// steal, guest and guest_nice; guests count as user, too.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

fn resident_kib(status: &str) -> Option<f64> {
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    size.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        let stat = "cpu  100 20 30 4000 500 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";

        assert_eq!(busy_ticks(stat), Some(163));
        assert_eq!(busy_ticks("intr 1 2 3"), None);
    }

    #[test]
    fn resident_memory_is_read_with_its_unit() {
        assert_eq!(
            resident_kib("Name:\tx\nVmRSS:\t   4321 kB\nThreads:\t1\n"),
            Some(4321.0)
        );
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }
}
