//! What the process itself uses, from `/proc` (proc_pid_stat(5)).

use std::fs;
use std::io;
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};
use rustix::process::{Resource, getrlimit};

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

/// What never changes.
#[derive(Clone, Copy)]
struct Units {
    ticks_per_second: f64,
    page_bytes: u64,
    /// Since 1970.
    boot_time_seconds: f64,
}

impl Process {
    /// Reads it.
    ///
    /// # Errors
    /// There is no `/proc`, or it says something else than it does on Linux.
    pub(super) fn read() -> io::Result<Self> {
        let units = Units::get()?;
        let text = fs::read_to_string("/proc/self/stat")?;
        // The second field is the name, in parentheses, and may hold anything.
        let (_, fields) = text
            .rsplit_once(')')
            .ok_or_else(|| unexpected("/proc/self/stat"))?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Numbered as in the manual, where the first after the name is the third.
        let field = |number: usize| -> io::Result<u64> {
            let field = fields.get(number - 3).and_then(|field| field.parse().ok());
            field.ok_or_else(|| unexpected("/proc/self/stat"))
        };
        let seconds = |ticks: u64| ticks as f64 / units.ticks_per_second;
        // One of them is the listing's own.
        let n_fds = fs::read_dir("/proc/self/fd")?.count() as u64;
        Ok(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            n_threads: field(20)?,
            start_time_seconds: units.boot_time_seconds + seconds(field(22)?),
            resident_bytes: field(24)? * units.page_bytes,
            n_open_fds: n_fds.saturating_sub(1),
            max_fds: getrlimit(Resource::Nofile).current,
        })
    }
}

impl Units {
    fn get() -> io::Result<Self> {
        static UNITS: OnceLock<Units> = OnceLock::new();
        if let Some(units) = UNITS.get() {
            return Ok(*units);
        }
        let known = |name| sysconf(name)?.ok_or_else(|| io::Error::other("the system does not say"));
        let stat = fs::read_to_string("/proc/stat")?;
        let boot_time = stat.lines().find_map(|line| line.strip_prefix("btime "));
        let boot_time = boot_time.and_then(|seconds| seconds.trim().parse().ok());
        let units = Self {
            ticks_per_second: known(SysconfVar::CLK_TCK)? as f64,
            page_bytes: known(SysconfVar::PAGE_SIZE)? as u64,
            boot_time_seconds: boot_time.ok_or_else(|| unexpected("/proc/stat"))?,
        };
        Ok(*UNITS.get_or_init(|| units))
    }
}

fn unexpected(file: &str) -> io::Error {
    io::Error::other(format!("{file} is not as on Linux"))
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
