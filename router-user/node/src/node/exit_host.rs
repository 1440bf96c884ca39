//! What an exit needs of the host beside routes: a table of nftables, and settings of the kernel.
//!
//! Who serves as an exit forwards packets of peers and gives them its own address. Whose default route is a peer has the
//! packets between nodes marked on their way in too where the host checks sources strictly, as the way back is looked up
//! with the mark.

use std::fs;
use std::path::Path;

use tracing::{info, warn};

use crate::config::Config;
use crate::device::{NftError, NftRules, has_nft_table, n_nft_rules};
use stream_router_engine::causes::with_sources;
use stream_router_engine::route_plan::RouteTable;

const SETTINGS: &str = "/proc/sys/net";
const IPV4_FORWARDING: &str = "ipv4/ip_forward";
const IPV6_FORWARDING: &str = "ipv6/conf/all/forwarding";
const VALID_MARK: &str = "ipv4/conf/all/src_valid_mark";

/// Flags of a default route that a router has advertised (`RTF_ADDRCONF`, `RTF_DEFAULT`).
const ADVERTISED_DEFAULT: u32 = 0x0005_0000;

/// The table and settings of a node, which are put back when it is dropped.
#[derive(Debug)]
pub(super) struct ExitHost {
    device: String,
    rules: NftRules,
    changed: Vec<(&'static str, String)>,
}

impl ExitHost {
    /// Makes one that has changed nothing yet.
    pub(super) fn new(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            rules: NftRules::default(),
            changed: Vec::new(),
        }
    }

    /// Returns the rules that the node has in its table of nftables.
    pub(super) fn rules(&self) -> NftRules {
        self.rules
    }

    /// Checks that the host can be what a configuration says.
    ///
    /// # Errors
    /// It is to serve as an exit, and has no `nft`.
    pub(super) fn check(&self, config: &Config) -> Result<(), NftError> {
        if config.exit().serve() {
            has_nft_table(&self.device)?;
        }
        Ok(())
    }

    /// Makes the host what a configuration says; returns what could not be done, and what to do about it.
    pub(super) fn apply(&mut self, config: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        let mark = config.transport().fwmark().filter(|_| diverts_ipv4(config));
        let wanted = NftRules {
            serve: config.exit().serve(),
            restore_mark: mark.map(u32::from).filter(|_| is_strict(&self.device)),
        };
        self.set_all(config, wanted, &mut notes);
        // A table may be left of a node that was killed.
        let is_left = || matches!(n_nft_rules(&self.device), Ok(n) if n > 0);
        if wanted != self.rules || !wanted.is_empty() || is_left() {
            match wanted.apply(&self.device) {
                Ok(()) => self.rules = wanted,
                Err(error) => {
                    let what = match wanted.restore_mark {
                        Some(_) => {
                            "the host checks sources strictly and drops what peers answer (sysctl -w \
                                    net.ipv4.conf.all.rp_filter=2 has it check loosely)"
                        }
                        None => "packets of peers do not leave",
                    };
                    notes.push(format!("{what}: {}", with_sources(&error)));
                }
            }
        }
        notes
    }

    fn set_all(&mut self, config: &Config, wanted: NftRules, notes: &mut Vec<String>) {
        let networks = || config.peers().iter().flat_map(|peer| peer.allowed_ips());
        let mut needed = Vec::new();
        if wanted.serve && networks().any(|net| net.addr().is_ipv4()) {
            needed.push(IPV4_FORWARDING);
        }
        if wanted.serve && networks().any(|net| net.addr().is_ipv6()) {
            match advertised_default() {
                Some(interface) if read(IPV6_FORWARDING).as_deref() == Some("0") => notes.push(format!(
                    "IPv6 packets of peers do not leave: to forward would end the default route that a router advertises \
                     at {interface}; sysctl -w net.ipv6.conf.{interface}.accept_ra=2 net.ipv6.conf.all.forwarding=1"
                )),
                _ => needed.push(IPV6_FORWARDING),
            }
        }
        if wanted.restore_mark.is_some() {
            needed.push(VALID_MARK);
        }
        let (kept, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|(name, _)| needed.contains(name));
        self.changed = kept;
        notes.extend(over.iter().filter_map(|(name, before)| write(name, before).err()));
        for name in needed {
            match read(name) {
                Some(value) if value == "0" => match write(name, "1") {
                    Ok(()) => {
                        info!(
                            setting = setting(name),
                            "turned on; the node turns it off again when it stops"
                        );
                        self.changed.push((name, value));
                    }
                    Err(why) => notes.push(why),
                },
                _ => {}
            }
        }
    }

    /// Puts everything back.
    pub(super) fn remove(&mut self) {
        if !self.rules.is_empty() {
            self.rules = NftRules::default();
            if let Err(error) = self.rules.apply(&self.device) {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the node's table of nftables stays"
                );
            }
        }
        for (name, before) in std::mem::take(&mut self.changed) {
            if let Err(why) = write(name, &before) {
                warn!("{why}");
            }
        }
    }
}

impl Drop for ExitHost {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Returns whether packets of the host are led into the tunnel by rules, so that the way back of packets between nodes
/// is another one without the mark.
pub(crate) fn diverts_ipv4(config: &Config) -> bool {
    let routes = config.routes();
    let mut ipv4 = routes.iter().filter(|(net, _)| net.addr().is_ipv4());
    ipv4.any(|(_, table)| *table != RouteTable::Main)
}

/// Returns whether an interface other than `device` drops what comes from an address that is routed elsewhere. The kernel
/// takes the larger of an interface's setting and that of all.
pub(crate) fn is_strict(device: &str) -> bool {
    let Ok(interfaces) = fs::read_dir(Path::new(SETTINGS).join("ipv4/conf")) else {
        return false;
    };
    let value =
        |name: &str| read(&format!("ipv4/conf/{name}/rp_filter")).and_then(|text| text.parse::<u8>().ok());
    let all = value("all").unwrap_or(0);
    interfaces.flatten().any(|interface| {
        let name = interface.file_name();
        let name = name.to_string_lossy();
        !["all", "default", "lo", device].contains(&&*name) && value(&name).unwrap_or(0).max(all) == 1
    })
}

/// Returns the interface of an IPv6 default route that a router has advertised.
fn advertised_default() -> Option<String> {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").ok()?;
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        let is_default = *fields.get(1)? == "00" && flags & ADVERTISED_DEFAULT == ADVERTISED_DEFAULT;
        is_default.then(|| fields.get(9).map(|name| (*name).to_owned()))?
    })
}

fn read(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(SETTINGS).join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn write(name: &str, value: &str) -> Result<(), String> {
    let written = fs::write(Path::new(SETTINGS).join(name), value);
    written.map_err(|error| format!("cannot set {}: {error}; sysctl -w {0}={value}", setting(name)))
}

fn setting(name: &str) -> String {
    format!("net.{}", name.replace('/', "."))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn config(allowed_ips: &str, rest: &str) -> Config {
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n{rest}\n[[peer]]\n\
             id = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'\nallowed_ips = {allowed_ips}\n"
        );
        Config::parse(&text, Path::new("sr.toml")).unwrap()
    }

    fn in_own_network(test: impl FnOnce() + Send + 'static) {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            test();
        };
        std::thread::spawn(inside).join().unwrap();
    }

    #[test]
    fn serving_forwards_and_stopping_puts_back_what_was_before() {
        in_own_network(|| {
            write(IPV6_FORWARDING, "1").unwrap();
            let mut host = ExitHost::new("sr0");
            let config = config("['10.42.0.2/32', 'fd42::2/128']", "[exit]\nserve = true");
            host.check(&config).unwrap();

            assert_eq!(host.apply(&config), Vec::<String>::new());
            assert_eq!(read(IPV4_FORWARDING).as_deref(), Some("1"));
            assert!(has_nft_table("sr0").unwrap());
            drop(host);

            assert_eq!(read(IPV4_FORWARDING).as_deref(), Some("0"));
            assert_eq!(read(IPV6_FORWARDING).as_deref(), Some("1"));
            assert!(!has_nft_table("sr0").unwrap());
        });
    }

    #[test]
    fn marks_are_restored_only_where_sources_are_checked_strictly_and_rules_divert() {
        in_own_network(|| {
            let mut host = ExitHost::new("sr0");
            let (split, full) = (config("['10.42.0.2/32']", ""), config("['0.0.0.0/0']", ""));
            host.apply(&full);
            assert_eq!(host.rules, NftRules::default());
            write("ipv4/conf/all/rp_filter", "1").unwrap();
            // The loopback interface is the only one here.
            assert!(!is_strict("sr0"));

            let up = |name: &str| {
                std::process::Command::new("ip")
                    .args(["link", "add", name, "type", "veth"])
                    .status()
            };
            assert!(up("u0").unwrap().success());
            assert!(is_strict("sr0"));
            host.apply(&split);
            assert_eq!(host.rules, NftRules::default());
            host.apply(&full);

            assert_eq!(host.rules.restore_mark, Some(0x2053));
            assert_eq!(read(VALID_MARK).as_deref(), Some("1"));
            host.apply(&split);
            assert_eq!(read(VALID_MARK).as_deref(), Some("0"));
            assert!(!has_nft_table("sr0").unwrap());
        });
    }
}
