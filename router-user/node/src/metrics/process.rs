//! What the process itself uses, from `/proc` (proc_pid_stat(5)).

use std::fs;
use std::io;
use std::sync::OnceLock;

use procfs::ProcResult;
use procfs::process::LimitValue;

/// The process at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) n_open_fds: u64,
    /// None if there is no limit.
    pub(super) max_fds: Option<u64>,
    pub(super) n_threads: u64,
    /// Since 1970.
    pub(super) start_time_seconds: f64,
}

impl Process {
    /// Reads it.
    ///
    /// # Errors
    /// There is no `/proc`, or it says something else than it does on Linux.
    pub(super) fn read() -> io::Result<Self> {
        let process = procfs::process::Process::myself().map_err(io::Error::other)?;
        let stat = process.stat().map_err(io::Error::other)?;
        let limits = process.limits().map_err(io::Error::other)?;
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        // One of them is the listing's own.
        let n_fds = fs::read_dir("/proc/self/fd")?.count() as u64;
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            n_threads: stat.num_threads as u64,
            start_time_seconds: boot_time().map_err(io::Error::other)? as f64 + seconds(stat.starttime),
            resident_bytes: stat.rss * procfs::page_size(),
            n_open_fds: n_fds.saturating_sub(1),
            max_fds: match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => Some(limit),
                LimitValue::Unlimited => None,
            },
        })
    }
}

/// Returns when the system booted, in seconds since 1970; the same each time, though what the kernel says moves with the
/// clock.
fn boot_time() -> ProcResult<u64> {
    static BOOT_TIME: OnceLock<u64> = OnceLock::new();
    match BOOT_TIME.get() {
        Some(boot_time) => Ok(*boot_time),
        None => procfs::boot_time_secs().map(|boot_time| *BOOT_TIME.get_or_init(|| boot_time)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_process_that_reads_is_alive_and_started_in_the_past() {
        let process = Process::read().unwrap();

        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.n_threads >= 1, "{process:?}");
        assert!(process.n_open_fds >= 3, "{process:?}");
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!(
            (0.0..86_400.0).contains(&(now - process.start_time_seconds)),
            "{process:?}"
        );
    }

    #[test]
    fn an_open_file_is_counted() {
        let before = Process::read().unwrap().n_open_fds;

        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();

        // Other tests open and close files, too.
        let after = Process::read().unwrap().n_open_fds;
        assert!(after + 50 > before + files.len() as u64, "{before} {after}");
    }

    #[test]
    fn the_start_stays_where_it_is() {
        let start = || Process::read().unwrap().start_time_seconds;
        assert_eq!(start(), start());
    }
}
