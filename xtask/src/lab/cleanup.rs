//! Removes what a process made and did not remove itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::identity::{device_maker, maker};
use super::process::{text, until};
use super::{PIN_ROOT, WIREGUARD_SOCKETS};

pub(super) const NETNS_ROOT: &str = "/run/netns";
/// Environment variable: seconds after which a program that uses the lab, and meanwhile makes nothing new with it, is
/// ended.
pub const TIME_LIMIT_SECS: &str = "STREAM_ROUTER_LAB_LIMIT_SECS";
const LIMIT: Duration = Duration::from_secs(10);

/// Removes the namespaces, pins and directories of processes that are gone.
///
/// # Errors
/// When something cannot be removed.
pub fn clear_leftovers() -> Result<()> {
    clear(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes this process's namespaces, pins and directories when a signal ends it, or when it has called this for the
/// last time too long ago.
pub(super) fn at_the_end() -> Result<()> {
    *last_call() = Some(Instant::now());
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        ctrlc::set_handler(|| end(130)).map_err(|error| format!("cannot handle signals: {error}"))?;
        limit_time()
    });
    installed.clone().map_err(|reason| anyhow!(reason))
}

fn last_call() -> MutexGuard<'static, Option<Instant>> {
    static LAST_CALL: Mutex<Option<Instant>> = Mutex::new(None);
    LAST_CALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test that hangs keeps its whole program for ever; somebody may wait for it who cannot interrupt it.
fn limit_time() -> Result<(), String> {
    let Some(limit) = std::env::var_os(TIME_LIMIT_SECS) else {
        return Ok(());
    };
    let secs: Option<u64> = limit.to_str().and_then(|secs| secs.parse().ok());
    let secs = secs.ok_or_else(|| format!("{TIME_LIMIT_SECS} is {limit:?}; it takes a number of seconds"))?;
    thread::spawn(move || {
        while let Some(left) = time_left(Instant::now(), Duration::from_secs(secs)) {
            // Nothing but the time is waited for.
            thread::sleep(left);
        }
        eprintln!(
            "this program has begun nothing for {secs} s and is ended; a test that has not reported hangs"
        );
        end(124);
    });
    Ok(())
}

/// How long a program that made its last thing at the last call may go on, unless that time is over.
fn time_left(now: Instant, limit: Duration) -> Option<Duration> {
    let since = now.saturating_duration_since((*last_call())?);
    limit.checked_sub(since).filter(|left| !left.is_zero())
}

fn end(code: i32) -> ! {
    if let Err(error) = clear(|pid| pid == process::id()) {
        eprintln!("cannot clean up: {error:#}");
    }
    process::exit(code)
}

/// Ends every process in these namespaces, then removes the namespaces and the pins of these devices.
///
/// Names that are not there are left out.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_network(namespaces: &[&str], devices: &[&str]) -> Result<()> {
    let present = names_in(Path::new(NETNS_ROOT))?;
    for namespace in namespaces {
        if present.contains(*namespace) {
            remove_namespace(namespace)?;
        }
    }
    for device in devices {
        remove_tree(&Path::new(PIN_ROOT).join(device))?;
    }
    if !devices.is_empty() {
        remove_if_empty(Path::new(PIN_ROOT))?;
    }
    Ok(())
}

/// Ends every process in a namespace, then deletes it.
pub(super) fn remove_namespace(name: &str) -> Result<()> {
    end_processes(name)?;
    text(Command::new("ip").args(["netns", "delete", name]), LIMIT)?;
    Ok(())
}

fn clear(of_maker: impl Fn(u32) -> bool) -> Result<()> {
    let of = |maker: Option<u32>| maker.is_some_and(&of_maker);
    let namespaces = names_in(Path::new(NETNS_ROOT))?;
    let namespaces: Vec<&str> = namespaces
        .iter()
        .map(String::as_str)
        .filter(|name| of(maker(name)))
        .collect();
    let devices = names_in(Path::new(PIN_ROOT))?;
    let devices: Vec<&str> = devices
        .iter()
        .map(String::as_str)
        .filter(|name| of(device_maker(name)))
        .collect();
    remove_network(&namespaces, &devices)?;
    for name in names_in(Path::new(WIREGUARD_SOCKETS))? {
        if of(name.strip_suffix(".sock").and_then(device_maker)) {
            remove_file(&Path::new(WIREGUARD_SOCKETS).join(name))?;
        }
    }
    let temporary = std::env::temp_dir();
    for name in names_in(&temporary)?.iter().filter(|name| of(maker(name))) {
        remove_tree(&temporary.join(name))?;
    }
    Ok(())
}

/// Ends the processes in a namespace: in order first, so that a node removes what it made, then by force.
fn end_processes(name: &str) -> Result<()> {
    signal_all(name, Signal::SIGTERM)?;
    if until("processes end", Duration::from_secs(3), || gone(name)).is_err() {
        signal_all(name, Signal::SIGKILL)?;
        until("processes end", LIMIT, || gone(name))
            .with_context(|| format!("processes are left in {name}"))?;
    }
    Ok(())
}

fn gone(name: &str) -> Result<Option<()>> {
    Ok(processes(name)?.is_empty().then_some(()))
}

fn signal_all(name: &str, signal: Signal) -> Result<()> {
    for pid in processes(name)? {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot send {signal} to {pid}")),
        }
    }
    Ok(())
}

/// Returns the processes in a namespace; a zombie has left its namespace and is not listed.
fn processes(name: &str) -> Result<Vec<Pid>> {
    let listed = text(Command::new("ip").args(["netns", "pids", name]), LIMIT)?;
    let own = Pid::this();
    let pids = listed
        .split_whitespace()
        .map(|pid| pid.parse().map(Pid::from_raw));
    let pids: Vec<Pid> = pids
        .collect::<Result<_, _>>()
        .context("ip netns pids printed no number")?;
    Ok(pids.into_iter().filter(|pid| *pid != own).collect())
}

fn names_in(directory: &Path) -> Result<BTreeSet<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_if_empty(path: &Path) -> Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match fs::remove_dir(path) {
        Err(error) if ![DirectoryNotEmpty, NotFound].contains(&error.kind()) => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::process::wait;

    #[test]
    fn a_program_that_makes_something_now_and_then_is_not_ended() {
        let (made, limit) = (Instant::now(), Duration::from_secs(60));
        let _directory = crate::lab::ScratchDir::unique("made").unwrap();

        assert!(time_left(made + limit / 2, limit).is_some_and(|left| left >= limit / 2));
        // Another test may have made something since; none does in an hour's time.
        assert_eq!(time_left(made + Duration::from_secs(3600), limit), None);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let leftover = format!("sr-t{}-0-left", ended.id());
        let own = crate::lab::Namespace::unique("kept").unwrap();
        text(Command::new("ip").args(["netns", "add", &leftover]), LIMIT).unwrap();
        let mut forgotten = Command::new("ip")
            .args(["netns", "exec", &leftover, "sleep", "600"])
            .spawn()
            .unwrap();
        until("the process is inside", LIMIT, || {
            Ok(gone(&leftover)?.is_none().then_some(()))
        })
        .unwrap();
        let directory = std::env::temp_dir().join(&leftover);
        fs::create_dir(&directory).unwrap();

        clear_leftovers().unwrap();

        assert!(!wait(&mut forgotten, LIMIT).unwrap().success());
        assert!(!Path::new(NETNS_ROOT).join(&leftover).exists() && !directory.exists());
        assert!(Path::new(NETNS_ROOT).join(own.name()).exists());
    }
}
