//! The `[node]` section.

use std::path::{Path, PathBuf};

use libp2p::Multiaddr;

use super::address::{LISTEN_ALLOWED, listen_address};
use super::instance::NodeDefaults;
use super::name::read_name;
use super::problem::{Located, Problems};
use super::reader::Table;

/// Where packages put the configuration, and the service reads it.
pub const INSTALLED_CONFIG: &str = "/etc/stream-router.toml";

/// Addresses a node listens on unless told otherwise.
const DEFAULT_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"];

/// Those that it listens on beside, if the host has IPv6.
const DEFAULT_LISTEN_V6: [&str; 2] = ["/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1"];

/// Is there, even if empty, unless the kernel has no IPv6.
const V6_ADDRESSES: &str = "/proc/net/if_inet6";

/// Longest path of a Unix socket: `sun_path` without its terminating zero.
const MAX_SOCKET_PATH_LEN: usize = 107;

/// The node itself: identity, addresses, control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSection {
    name: Option<String>,
    key: PathBuf,
    listen: Vec<Multiaddr>,
    control: PathBuf,
}

impl NodeSection {
    /// Returns the name of the node, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the file that holds the node's identity.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Returns the addresses to listen on; may be empty, then the node only dials.
    pub fn listen(&self) -> &[Multiaddr] {
        &self.listen
    }

    /// Returns the path of the control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    pub(super) fn read(mut table: Table<'_>, defaults: &NodeDefaults, problems: &mut Problems) -> Self {
        let key = path(&mut table, "key", &defaults.key, problems);
        let control = path(&mut table, "control", &defaults.control, problems);
        if control.value.as_os_str().len() > MAX_SOCKET_PATH_LEN {
            let wrong = format!("the path has {} bytes", control.value.as_os_str().len());
            problems.add(
                &control.place,
                wrong,
                format!("an absolute path of at most {MAX_SOCKET_PATH_LEN} bytes"),
            );
        }
        let listen = listen(&mut table, problems);
        let name = read_name(&mut table, problems);
        table.finish(problems);
        Self {
            name: name.map(|name| name.value),
            key: key.value,
            listen,
            control: control.value,
        }
    }
}

fn path(
    table: &mut Table<'_>,
    name: &'static str,
    default: &Path,
    problems: &mut Problems,
) -> Located<PathBuf> {
    located_path(table, name, problems).unwrap_or_else(|| Located {
        place: table.absent(name),
        value: default.to_owned(),
    })
}

/// Reads the absolute path of a file, if there is one.
pub(super) fn optional_path(
    table: &mut Table<'_>,
    name: &'static str,
    problems: &mut Problems,
) -> Option<PathBuf> {
    located_path(table, name, problems).map(|path| path.value)
}

fn located_path(
    table: &mut Table<'_>,
    name: &'static str,
    problems: &mut Problems,
) -> Option<Located<PathBuf>> {
    const ALLOWED: &str = "an absolute path";
    let Located { place, value } = table.string(name, ALLOWED, problems)?;
    if !value.starts_with('/') || value.ends_with('/') || value.contains('\0') {
        problems.add(
            &place,
            format!("{value:?} is not the absolute path of a file"),
            ALLOWED,
        );
    }
    Some(Located {
        place,
        value: value.into(),
    })
}

/// Returns the addresses of a host that has IPv6, or has not.
pub(super) fn default_listen(has_v6: bool) -> Vec<Multiaddr> {
    let v6 = DEFAULT_LISTEN_V6.iter().filter(|_| has_v6);
    let addresses = DEFAULT_LISTEN.iter().chain(v6);
    addresses
        .map(|address| address.parse().expect("a valid constant"))
        .collect()
}

fn listen(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Multiaddr> {
    let Some(listed) = table.strings("listen", LISTEN_ALLOWED, problems) else {
        return default_listen(Path::new(V6_ADDRESSES).exists());
    };
    let mut addresses: Vec<Multiaddr> = Vec::with_capacity(listed.len());
    for Located { place, value } in listed {
        match listen_address(&value) {
            Ok(address) if addresses.contains(&address) => {
                problems.add(&place, format!("{value} is listed twice"), "each address once");
            }
            Ok(address) => addresses.push(address),
            Err(wrong) => problems.add(&place, wrong, LISTEN_ALLOWED),
        }
    }
    addresses
}
