//! Settings of the kernel's network.

use std::fmt;
use std::fs;
use std::path::Path;

const SETTINGS: &str = "/proc/sys/net";

/// A setting of the network namespace, by its path below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl(String);

impl Sysctl {
    /// Names the setting at a path such as `ipv4/ip_forward`.
    pub fn at(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Returns the value; `None` if there is no such setting, or it may not be read.
    pub fn read(&self) -> Option<String> {
        let text = fs::read_to_string(Path::new(SETTINGS).join(&self.0)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Sets the value.
    ///
    /// # Errors
    /// The kernel refuses: the text says why, and the command that does it.
    pub fn write(&self, value: &str) -> Result<(), String> {
        let written = fs::write(Path::new(SETTINGS).join(&self.0), value);
        written.map_err(|error| format!("cannot set {self}: {error}; sysctl -w {self}={value}"))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As sysctl(8) has it, for which a full stop in the name of an interface is a slash.
        let name: String = self
            .0
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect();
        write!(f, "net.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_called_as_sysctl_calls_it() {
        assert_eq!(Sysctl::at("ipv4/ip_forward").to_string(), "net.ipv4.ip_forward");
        assert_eq!(
            Sysctl::at("ipv4/conf/vpn.1/forwarding").to_string(),
            "net.ipv4.conf.vpn/1.forwarding"
        );
        assert_eq!(Sysctl::at("ipv4/no_such_setting").read(), None);
    }
}
