//! Several nodes on a host: each has a name, a file of this name in one directory, and by its name defaults of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::device_name::{DEFAULT_NAME, NAME_ALLOWED, is_device_name};

/// Where the configurations of several nodes are, `NAME.toml` that of the node NAME.
pub const INSTANCE_DIRECTORY: &str = "/etc/stream-router";

/// Where `keygen` writes the identity and a node looks for it unless told otherwise.
pub const DEFAULT_KEY_FILE: &str = "/var/lib/stream-router/identity.key";

/// Path of the control socket unless told otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/stream-router/control.sock";

const EXTENSION: &str = "toml";

/// The name of one of several nodes on a host, by which its device is called too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance(String);

impl Instance {
    /// Returns the node whose configuration this file is; none if it is the only one, or its file is elsewhere.
    ///
    /// # Errors
    /// No node can have the name of the file.
    pub(super) fn of_file(file: &Path) -> Result<Option<Self>, String> {
        let file = std::path::absolute(file).unwrap_or_else(|_no_directory| file.to_owned());
        let name = file.file_stem().and_then(|name| name.to_str());
        let is_elsewhere = file.parent() != Some(Path::new(INSTANCE_DIRECTORY));
        match name {
            Some(name) if !is_elsewhere && file.extension().is_some_and(|end| end == EXTENSION) => {
                if !is_device_name(name) {
                    return Err(format!("{name:?} cannot name a node and its device"));
                }
                Ok(Some(Self(name.to_owned())))
            }
            _ => Ok(None),
        }
    }

    /// Returns the nodes that have a configuration on this host, in order.
    pub fn configured() -> Vec<Self> {
        // Without the directory, or without permission for it, there are none to name.
        let entries = fs::read_dir(INSTANCE_DIRECTORY).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| Self::of_file(&entry.path()).ok().flatten())
            .collect();
        all.sort();
        all
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Returns the configuration file.
    pub fn config(&self) -> PathBuf {
        Path::new(INSTANCE_DIRECTORY).join(format!("{}.{EXTENSION}", self.0))
    }

    /// Returns the control socket unless the file says otherwise: in the runtime directory of the node's own service.
    pub fn control(&self) -> PathBuf {
        format!("/run/stream-router-{}/control.sock", self.0).into()
    }

    /// Returns the identity file unless the file says otherwise.
    pub fn key(&self) -> PathBuf {
        format!("/var/lib/stream-router/{}.key", self.0).into()
    }
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if is_device_name(name) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "{name:?} cannot name a node and its device (allowed: {NAME_ALLOWED})"
        ))
    }
}

/// What a node has where its file says nothing.
pub(super) struct NodeDefaults {
    pub(super) key: PathBuf,
    pub(super) control: PathBuf,
    pub(super) device: String,
}

impl NodeDefaults {
    pub(super) fn of(instance: Option<&Instance>) -> Self {
        match instance {
            Some(instance) => Self {
                key: instance.key(),
                control: instance.control(),
                device: instance.name().to_owned(),
            },
            None => Self {
                key: DEFAULT_KEY_FILE.into(),
                control: DEFAULT_CONTROL_SOCKET.into(),
                device: DEFAULT_NAME.to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const TEXT: &str = "[device]\naddresses = ['10.42.0.1/24']\n";

    fn parse(text: &str, file: &str) -> Config {
        Config::parse(text, Path::new(file)).unwrap()
    }

    #[test]
    fn a_file_in_the_directory_has_defaults_by_its_name() {
        let config = parse(TEXT, "/etc/stream-router/office.toml");

        assert_eq!(config.device().name(), "office");
        assert_eq!(
            config.node().key(),
            Path::new("/var/lib/stream-router/office.key")
        );
        assert_eq!(
            config.node().control(),
            Path::new("/run/stream-router-office/control.sock")
        );
        let said = parse(
            &format!("[node]\nkey = '/k'\ncontrol = '/c'\n{TEXT}name = 'sr7'\n"),
            "/etc/stream-router/office.toml",
        );
        assert_eq!(said.device().name(), "sr7");
        assert_eq!(
            (said.node().key(), said.node().control()),
            (Path::new("/k"), Path::new("/c"))
        );
        for elsewhere in [
            "/etc/stream-router.toml",
            "/etc/stream-router/deeper/office.toml",
            "/etc/stream-router/office.conf",
        ] {
            assert_eq!(parse(TEXT, elsewhere).device().name(), "sr0", "{elsewhere}");
        }
    }

    #[test]
    fn a_name_that_no_device_can_have_is_a_problem_of_the_file() {
        for name in ["sixteen-letters-", "a.b", "lo"] {
            let file = format!("/etc/stream-router/{name}.toml");
            let wrong = Config::parse(TEXT, Path::new(&file)).unwrap_err().to_string();
            assert!(wrong.contains("cannot name a node and its device"), "{wrong}");
            assert!(name.parse::<Instance>().is_err());
        }
        assert_eq!(
            "office".parse::<Instance>().unwrap().config(),
            Path::new("/etc/stream-router/office.toml")
        );
    }
}
