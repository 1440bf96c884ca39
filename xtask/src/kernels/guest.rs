//! A machine with one kernel, emulated, and what it says on its serial line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::checks::{Counted, Outcome};
use super::image::Image;
use super::root::MARK;

/// A machine that is to be run.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its kernel.
    pub(super) image: Image,
    /// What it boots into.
    pub(super) initramfs: PathBuf,
    /// Words for the kernel's command line.
    pub(super) append: String,
    /// Where what it prints is kept.
    pub(super) log: PathBuf,
    /// How long it may run.
    pub(super) limit: Duration,
}

impl Machine {
    /// Returns its kernel's release, and how it is booted.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.image.release(), self.append)
            .trim_end()
            .to_owned()
    }

    /// Boots it and returns what became of the checks.
    ///
    /// # Errors
    /// When it does not boot, or has not done all checks in time.
    pub(super) fn run(&self, checks: &[Counted]) -> Result<Vec<Outcome>> {
        let mut log =
            File::create(&self.log).with_context(|| format!("cannot create {}", self.log.display()))?;
        let mut machine = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let serial = machine.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = sync_channel(1024);
        thread::spawn(move || {
            for line in BufReader::new(serial).split(b'\n').map_while(|line| line.ok()) {
                if sender
                    .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let start = Instant::now();
        let mut outcomes = Vec::new();
        let mut end = Err("it ended before its checks did".to_owned());
        loop {
            let line = match lines.recv_timeout(self.limit.saturating_sub(start.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    end = Err(format!("not done after {:?}", self.limit));
                    break;
                }
            };
            writeln!(log, "{:4} {line}", start.elapsed().as_secs())
                .with_context(|| format!("cannot write {}", self.log.display()))?;
            // What a test prints may stand before it in the line.
            let Some((_, said)) = line.split_once(&format!("{MARK} ")) else {
                continue;
            };
            match said.split_whitespace().collect::<Vec<_>>()[..] {
                ["end", check, status, n_passed, secs] => {
                    outcomes.push(Outcome::read([check, status, n_passed, secs], checks));
                }
                ["done"] => end = Ok(()),
                _ => eprintln!("{}: {said}", self.name()),
            }
        }
        // It ends by itself after the last check; a kernel that hangs does not.
        machine.kill().context("cannot end qemu-system-x86_64")?;
        machine.wait().context("cannot wait for qemu-system-x86_64")?;
        if let Err(reason) = end {
            bail!("{reason}; see {}", self.log.display());
        }
        ensure!(outcomes.len() == checks.len(), "it did not run every check");
        Ok(outcomes)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"])
            .args(["-smp", "2", "-m", "3072", "-display", "none", "-nodefaults"])
            .args(["-serial", "stdio", "-no-reboot", "-kernel"])
            .arg(self.image.kernel())
            .arg("-initrd")
            .arg(&self.initramfs)
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on {}",
                self.append
            ));
        command
    }
}
