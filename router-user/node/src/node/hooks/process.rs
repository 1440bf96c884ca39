//! One command, bounded in time and in what it prints.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::Command;
use tokio::time::timeout;

/// Bytes of each of its outputs that are kept; the rest is read and left out.
const MAX_OUTPUT: u64 = 4096;

/// How a command ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    Done(ExitStatus),
    /// It took too long, and was killed with everything of its process group.
    Killed,
    /// It could not be run.
    Failed(io::Error),
}

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Group {
    /// Kills the group, whose leader has not been waited for, so that the id is still its own.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // Nobody is left in it, or all are killed.
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program with arguments in a process group of its own, and returns what it printed. It is done once its outputs are
/// closed and it has ended; dropped before, it is killed.
pub(super) async fn run(
    command: &[String],
    environment: &[(&'static str, String)],
    limit: Duration,
) -> (String, Ended) {
    let [program, arguments @ ..] = command else {
        return (String::new(), Ended::Failed(io::ErrorKind::InvalidInput.into()));
    };
    let spawned = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        // Whoever has it speaks for the node.
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return (String::new(), Ended::Failed(error)),
    };
    // Process ids are positive i32 values.
    let mut group = Group(child.id().map(|id| Pid::from_raw(id as i32)));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outputs = (child.stdout.take(), child.stderr.take());
    let waited = timeout(limit, async {
        tokio::join!(read(outputs.0, &mut out), read(outputs.1, &mut err));
        child.wait().await
    });
    let ended = match waited.await {
        Ok(Ok(status)) => {
            // The id may be another's from now on.
            group.0 = None;
            Ended::Done(status)
        }
        Ok(Err(error)) => Ended::Failed(error),
        Err(_elapsed) => Ended::Killed,
    };
    out.extend(err);
    (String::from_utf8_lossy(&out).into_owned(), ended)
}

/// Reads an output to its end, and keeps the beginning.
async fn read(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    // A pipe that cannot be read is at its end.
    let _failed = (&mut output).take(MAX_OUTPUT).read_to_end(kept).await;
    let _failed = copy(&mut output, &mut sink()).await;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LONG: Duration = Duration::from_secs(900);

    async fn shell(script: &str, limit: Duration) -> (String, Ended) {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&command, &[("STREAM_ROUTER_EVENT", "up".to_owned())], limit).await
    }

    #[tokio::test]
    async fn what_it_prints_is_kept_up_to_a_bound() {
        let (output, ended) = shell("echo $STREAM_ROUTER_EVENT; echo wrong >&2; exit 3", LONG).await;
        assert_eq!(output, "up\nwrong\n");
        assert!(
            matches!(ended, Ended::Done(status) if status.code() == Some(3)),
            "{ended:?}"
        );

        let (output, ended) = shell("head -c 1000000 /dev/zero", LONG).await;
        assert_eq!(output.len() as u64, MAX_OUTPUT);
        assert!(
            matches!(ended, Ended::Done(status) if status.success()),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_its_children() {
        let script = "sleep 1000 & echo $!; wait";

        let (output, ended) = shell(script, Duration::from_secs(3)).await;

        assert!(matches!(ended, Ended::Killed), "{ended:?}");
        let child = output.trim();
        assert!(!child.is_empty(), "the shell did not come to its first line");
        // Gone, or a zombie that nobody has waited for.
        let is_alive = || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn as_much_as_the_kernel_takes_can_be_told() {
        let net = "2001:db8:1234:5678:9abc:def0:1234:5678/128".parse().unwrap();
        let told = super::super::words(&vec![net; 20_000]);
        let command = ["/bin/sh", "-c", "echo ${#NETS}"].map(str::to_owned);

        let (output, ended) = run(&command, &[("NETS", told.clone())], LONG).await;

        assert_eq!(output.trim(), told.len().to_string(), "{ended:?}");
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_an_error() {
        let (output, ended) = run(&["/nowhere/hook".to_owned()], &[], LONG).await;
        assert!(
            output.is_empty() && matches!(ended, Ended::Failed(_)),
            "{ended:?}"
        );
    }
}
