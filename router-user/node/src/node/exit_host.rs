//! What an exit needs of the host beside routes: a table of nftables, and settings of the kernel.
//!
//! Who serves as an exit forwards packets of peers and gives them its own address. Whose default route is a peer has the
//! packets between nodes marked on their way in too where the host checks sources strictly, as the way back is looked up
//! with the mark.
//!
//! The table goes with the node. A setting that the node turned on stays on: others may have come to need it.

use std::fs;

use tracing::{info, warn};

use crate::config::Config;
use crate::device::{NftError, NftRules, Sysctl, has_nft_table, n_nft_rules};
use stream_router_engine::causes::with_sources;
use stream_router_engine::route_plan::RouteTable;

const IPV6_FORWARDING: &str = "ipv6/conf/all/forwarding";

/// Flags of a default route that a router has advertised (`RTF_ADDRCONF`, `RTF_DEFAULT`).
const ADVERTISED_DEFAULT: u32 = 0x0005_0000;

/// What a configuration needs of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExitNeeds {
    serve: bool,
    serve_ipv4: bool,
    serve_ipv6: bool,
    /// Mark of packets between nodes, if rules lead others elsewhere.
    mark: Option<u32>,
    /// An interface checks sources strictly, or did so before.
    is_strict: bool,
}

impl ExitNeeds {
    /// Returns what a configuration needs of a host that is looked at now.
    pub(super) fn of(config: &Config) -> Self {
        let networks = || config.peers().iter().flat_map(|peer| peer.allowed_ips());
        let mark = config.transport().fwmark().filter(|_| diverts_ipv4(config));
        let serve = config.exit().serve();
        let mut needs = Self {
            serve,
            serve_ipv4: serve && networks().any(|net| net.addr().is_ipv4()),
            serve_ipv6: serve && networks().any(|net| net.addr().is_ipv6()),
            mark: mark.map(u32::from),
            is_strict: false,
        };
        needs.look_at_sources(config.device().name());
        needs
    }

    /// Looks whether the host has come to check sources strictly.
    pub(super) fn look_at_sources(&mut self, device: &str) {
        self.is_strict = self.is_strict || self.mark.is_some() && is_strict(device);
    }

    /// Returns the rules of the table of nftables.
    pub(super) fn nft(&self) -> NftRules {
        NftRules {
            serve: self.serve,
            restore_mark: self.mark.filter(|_| self.is_strict),
        }
    }

    /// Returns the settings that have to be on.
    pub(super) fn settings(&self, device: &str) -> Vec<Sysctl> {
        let mut settings = Vec::new();
        if self.serve_ipv4 {
            settings.push(Sysctl::at("ipv4/ip_forward"));
            settings.push(Sysctl::at(format!("ipv4/conf/{device}/forwarding")));
        }
        if self.serve_ipv6 {
            settings.push(Sysctl::at(IPV6_FORWARDING));
            settings.push(Sysctl::at(format!("ipv6/conf/{device}/forwarding")));
        }
        if self.nft().restore_mark.is_some() {
            settings.push(Sysctl::at("ipv4/conf/all/src_valid_mark"));
        }
        settings
    }
}

/// A setting that is off and has to be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OffSetting {
    pub(super) setting: Sysctl,
    /// Interface whose default route, which a router has advertised, would end if the node turned the setting on.
    pub(super) ends_default_of: Option<String>,
}

impl OffSetting {
    /// Returns which of the settings are off. One that is not there, as that of a protocol that the host does not have, is
    /// not looked at.
    pub(super) fn among(settings: &[Sysctl]) -> Vec<Self> {
        let is_off = |setting: &&Sysctl| setting.read().as_deref() == Some("0");
        let off = settings.iter().filter(is_off);
        off.map(|setting| Self {
            setting: setting.clone(),
            ends_default_of: advertised_default().filter(|_| *setting == Sysctl::at(IPV6_FORWARDING)),
        })
        .collect()
    }

    /// Returns the command that turns it on.
    pub(super) fn fix(&self) -> String {
        let setting = &self.setting;
        match &self.ends_default_of {
            Some(interface) => format!("sysctl -w net.ipv6.conf.{interface}.accept_ra=2 {setting}=1"),
            None => format!("sysctl -w {setting}=1"),
        }
    }

    /// Turns it on.
    ///
    /// # Errors
    /// The kernel refuses, or it is not the node's to turn on; the text says what to do.
    fn turn_on(&self) -> Result<(), String> {
        if let Some(interface) = &self.ends_default_of {
            return Err(format!(
                "IPv6 packets of peers do not leave: to forward would end the default route that a router advertises at \
                 {interface}; {}",
                self.fix()
            ));
        }
        self.setting.write("1")
    }
}

/// Makes the host what an exit needs; the table goes when it is dropped.
#[derive(Debug)]
pub(super) struct ExitHost {
    device: String,
}

impl ExitHost {
    /// Makes one that has changed nothing yet.
    pub(super) fn new(device: &str) -> Self {
        Self {
            device: device.to_owned(),
        }
    }

    /// Checks that the host can be what a configuration says.
    ///
    /// # Errors
    /// It is to serve as an exit, and `nft` is not there, or refuses the table.
    pub(super) fn check(&self, config: &Config) -> Result<(), NftError> {
        let rules = NftRules {
            serve: config.exit().serve(),
            restore_mark: None,
        };
        rules.try_out(&self.device)
    }

    /// Makes the host what a configuration needs; returns what could not be done, and what to do about it.
    ///
    /// # Errors
    /// It is to serve as an exit, and `nft` refuses.
    pub(super) fn apply(&self, needs: &ExitNeeds) -> Result<Vec<String>, NftError> {
        let mut notes = Vec::new();
        let rules = needs.nft();
        // A table may be left of a node that was killed, or of the configuration before.
        if (!rules.is_empty() || self.has_table())
            && let Err(error) = rules.apply(&self.device)
        {
            if rules.serve {
                return Err(error);
            }
            let what = match rules.restore_mark {
                Some(_) => {
                    "the host checks sources strictly and drops what peers answer (sysctl -w \
                     net.ipv4.conf.all.rp_filter=2 has it check loosely)"
                }
                None => "the node's table of nftables stays",
            };
            notes.push(format!("{what}: {}", with_sources(&error)));
        }
        // One may turn on another.
        for setting in needs.settings(&self.device) {
            for off in OffSetting::among(&[setting]) {
                match off.turn_on() {
                    Ok(()) => info!(setting = %off.setting, "turned on; it stays on when the node stops"),
                    Err(why) => notes.push(why),
                }
            }
        }
        Ok(notes)
    }

    fn has_table(&self) -> bool {
        matches!(n_nft_rules(&self.device), Ok(n) if n > 0)
    }
}

impl Drop for ExitHost {
    fn drop(&mut self) {
        // Somebody may have emptied it.
        if has_nft_table(&self.device).unwrap_or(false)
            && let Err(error) = NftRules::default().apply(&self.device)
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "the node's table of nftables stays"
            );
        }
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
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv4/conf") else {
        return false;
    };
    let value = |name: &str| -> Option<u8> {
        let setting = Sysctl::at(format!("ipv4/conf/{name}/rp_filter"));
        setting.read()?.parse().ok()
    };
    let all = value("all").unwrap_or(0);
    interfaces.flatten().any(|interface| {
        let name = interface.file_name();
        let name = name.to_string_lossy();
        !["all", "default", "lo", device].contains(&&*name) && value(&name).unwrap_or(0).max(all) == 1
    })
}

/// Returns the interface of an IPv6 default route that a router has advertised, and that ends once the host forwards.
fn advertised_default() -> Option<String> {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").ok()?;
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        let is_default = *fields.get(1)? == "00" && flags & ADVERTISED_DEFAULT == ADVERTISED_DEFAULT;
        let name = (*fields.get(9)?).to_owned();
        // With 2, the kernel keeps it whether it forwards or not.
        let ends = || {
            Sysctl::at(format!("ipv6/conf/{name}/accept_ra"))
                .read()
                .as_deref()
                != Some("2")
        };
        (is_default && ends()).then_some(name)
    })
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

    fn ip(args: &str) {
        let ended = std::process::Command::new("ip").args(args.split(' ')).status();
        assert!(ended.unwrap().success(), "ip {args}");
    }

    fn value(path: &str) -> String {
        Sysctl::at(path).read().unwrap()
    }

    #[test]
    fn serving_forwards_and_stopping_removes_the_table_and_no_setting() {
        in_own_network(|| {
            let host = ExitHost::new("sr0");
            let config = config("['10.42.0.2/32', 'fd42::2/128']", "[exit]\nserve = true");
            host.check(&config).unwrap();
            assert!(!has_nft_table("sr0").unwrap(), "checking changes nothing");

            assert_eq!(host.apply(&ExitNeeds::of(&config)).unwrap(), Vec::<String>::new());
            assert!(has_nft_table("sr0").unwrap());
            drop(host);

            assert!(!has_nft_table("sr0").unwrap());
            // Others may have come to need them.
            assert_eq!(value("ipv4/ip_forward"), "1");
            assert_eq!(value("ipv6/conf/all/forwarding"), "1");
        });
    }

    #[test]
    fn the_device_itself_has_to_forward() {
        in_own_network(|| {
            ip("link add sr0 type veth peer name sr1");
            let host = ExitHost::new("sr0");
            let needs = ExitNeeds::of(&config("['10.42.0.2/32']", "[exit]\nserve = true"));
            host.apply(&needs).unwrap();
            let settings = needs.settings("sr0");
            assert_eq!(OffSetting::among(&settings), []);

            Sysctl::at("ipv4/conf/sr0/forwarding").write("0").unwrap();

            let off = OffSetting::among(&settings);
            assert_eq!(off.len(), 1);
            assert_eq!(off[0].fix(), "sysctl -w net.ipv4.conf.sr0.forwarding=1");
            host.apply(&needs).unwrap();
            assert_eq!(OffSetting::among(&settings), []);
        });
    }

    #[test]
    fn a_default_route_that_a_router_advertises_is_not_ended() {
        let off = OffSetting {
            setting: Sysctl::at(IPV6_FORWARDING),
            ends_default_of: Some("eth0".to_owned()),
        };

        let why = off.turn_on().unwrap_err();

        assert!(
            why.ends_with("sysctl -w net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.all.forwarding=1"),
            "{why}"
        );
    }

    #[test]
    fn marks_are_restored_only_where_sources_are_checked_strictly_and_rules_divert() {
        in_own_network(|| {
            let host = ExitHost::new("sr0");
            let (split, full) = (config("['10.42.0.2/32']", ""), config("['0.0.0.0/0']", ""));
            assert_eq!(ExitNeeds::of(&full).nft(), NftRules::default());
            Sysctl::at("ipv4/conf/all/rp_filter").write("1").unwrap();
            // The loopback interface is the only one here.
            assert!(!is_strict("sr0"));

            ip("link add u0 type veth");
            assert!(is_strict("sr0"));
            assert_eq!(ExitNeeds::of(&split).nft(), NftRules::default());
            let mut needs = ExitNeeds::of(&full);
            assert_eq!(host.apply(&needs).unwrap(), Vec::<String>::new());

            assert_eq!(needs.nft().restore_mark, Some(0x2053));
            assert_eq!(value("ipv4/conf/all/src_valid_mark"), "1");
            // What was needed once is kept until the next reload.
            Sysctl::at("ipv4/conf/all/rp_filter").write("0").unwrap();
            needs.look_at_sources("sr0");
            assert_eq!(needs.nft().restore_mark, Some(0x2053));
            host.apply(&ExitNeeds::of(&split)).unwrap();
            assert!(!has_nft_table("sr0").unwrap());
        });
    }
}
