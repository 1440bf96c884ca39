//! A terminal that nobody sits at: tmux on a socket of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::enter::end_with_parent;
use super::process::{signal, text, until, wait};

const LIMIT: Duration = Duration::from_secs(20);

/// A shell in a terminal; ended on drop with all that runs in it.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    server: Child,
}

impl Terminal {
    /// Starts one of this size; its socket stands in `directory`.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn start(directory: &Path, width: u16, height: u16) -> Result<Self> {
        let socket = directory.join("tmux.sock");
        let mut command = tmux(&socket);
        // In the foreground, so that it is a child that can be waited for.
        command.args(["-D", "-f", "/dev/null"]).stdin(Stdio::null());
        end_with_parent(&mut command);
        let server = command.spawn().context("cannot start tmux")?;
        let terminal = Self { socket, server };
        until("tmux listens", LIMIT, || {
            Ok(terminal.socket.exists().then_some(()))
        })?;
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "env PS1='$ ' sh",
        ])?;
        Ok(terminal)
    }

    /// Types a text.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Presses a key by the name that tmux has for it, such as `Enter` or `C-c`.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height])
            .map(drop)
    }

    /// Returns the lines on its screen.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Returns whether a cursor is shown.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn shows_cursor(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{cursor_flag}"])?.trim() == "1")
    }

    /// Waits until the screen is as it should be, and returns it.
    ///
    /// # Errors
    /// When it does not become so in time; the message shows the screen.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let waited = until(what, LIMIT, || {
            last = self.screen()?;
            Ok(is_so(&last).then(|| last.clone()))
        });
        let (screen, _) = waited.with_context(|| format!("the screen shows:\n{last}"))?;
        Ok(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        text(tmux(&self.socket).args(arguments), LIMIT)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let ended = signal(&self.server, Signal::SIGTERM).and_then(|()| wait(&mut self.server, LIMIT));
        if let Err(error) = ended {
            eprintln!("cannot end tmux: {error:#}");
        }
    }
}

fn tmux(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command.arg("-u").arg("-S").arg(socket);
    // Its own may be inside another one, and of a character set without boxes.
    command
        .env_remove("TMUX")
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm-256color");
    command
}
