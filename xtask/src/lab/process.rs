//! Processes that are waited for with a bound.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Environment variable that says how many times as long everything is waited for: on a machine that is emulated, all
/// takes longer.
pub const PATIENCE: &str = "STREAM_ROUTER_LAB_PATIENCE";

/// Returns how many times as long something takes on this machine as on one that is not emulated.
pub fn patience() -> u32 {
    let factor = std::env::var(PATIENCE)
        .ok()
        .and_then(|factor| factor.parse().ok());
    factor.unwrap_or(1)
}

/// Returns how long something is waited for on this machine that takes at most `limit` elsewhere.
pub fn patient(limit: Duration) -> Duration {
    limit * patience()
}

/// Runs a command to its end and returns what it printed and how it ended, whatever that was.
///
/// # Errors
/// When it cannot be started, or is not done in time; then it is killed.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let limit = patient(limit);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let pid = pid(&child)?;
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(limit) {
        Ok(output) => output.with_context(|| format!("cannot wait for {shown}")),
        Err(RecvTimeoutError::Disconnected) => bail!("lost {shown}"),
        Err(RecvTimeoutError::Timeout) => {
            // The process is not reaped before the waiting thread sent its output, so the id is still its own.
            kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill {shown}"))?;
            bail!("{shown} was not done after {limit:?}")
        }
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, fails, or is not done in time; the message carries what it printed.
pub fn text(command: &mut Command, limit: Duration) -> Result<String> {
    let output = output(command, limit)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}{}",
            shown(command),
            output.status,
            text.trim(),
            errors.trim()
        );
    }
    Ok(text)
}

/// Waits for a child to end.
///
/// # Errors
/// When it has not ended in time.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let what = format!("process {} has ended", child.id());
    let (status, _) = until(&what, limit, || Ok(child.try_wait()?))?;
    Ok(status)
}

/// Sends a signal to a child that has not been waited for.
///
/// # Errors
/// When the kernel refuses.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill(pid(child)?, signal).with_context(|| format!("cannot send {signal} to process {}", child.id()))
}

/// Looks at something again and again until it is there, and returns it with the time that took.
///
/// # Errors
/// When looking fails, or it is not there in time.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    let limit = patient(limit);
    loop {
        if let Some(found) = look()? {
            return Ok((found, start.elapsed()));
        }
        if start.elapsed() >= limit {
            bail!("{what}: not within {limit:?}");
        }
        // What is waited for is of other programs and tells nobody.
        thread::sleep(POLL_INTERVAL);
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(
        i32::try_from(child.id()).context("a process id is an i32")?,
    ))
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_end_is_an_error() {
        let result = output(Command::new("sleep").arg("60"), Duration::from_millis(50));

        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("sleep 60 was not done after 50ms")
        );
    }

    #[test]
    fn a_failure_carries_what_was_printed() {
        let result = text(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            Duration::from_secs(10),
        );

        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("exit status: 3") && message.ends_with("why"),
            "{message}"
        );
    }
}
