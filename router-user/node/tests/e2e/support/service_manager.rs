//! The socket of a service manager.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Listens to what services say.
pub(crate) struct ServiceManager(UnixDatagram);

impl ServiceManager {
    /// Listens at `path`; every user may speak.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(Self(socket))
    }

    /// The next message, if one comes within `limit`.
    pub(crate) fn message(&self, limit: Duration) -> Result<Option<String>> {
        self.0.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 4096];
        match self.0.recv(&mut buffer) {
            Ok(len) => Ok(Some(String::from_utf8_lossy(&buffer[..len]).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot listen"),
        }
    }

    /// Waits for a message that has this line; returns the message, and leaves those before it unread for ever.
    pub(crate) fn wait_for(&self, line: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut heard = Vec::new();
        while let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            if let Some(message) = self.message(left)? {
                if message.lines().any(|said| said == line) {
                    return Ok(message);
                }
                heard.push(message);
            }
        }
        bail!("nobody said {line} within {limit:?}; heard: {heard:?}")
    }
}
