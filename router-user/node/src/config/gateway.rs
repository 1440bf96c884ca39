//! A `[[gateway]]` section.

use super::device::RawDevice;
use super::device_name::MAX_NAME_LEN;
use super::problem::{Located, Place, Problems};
use super::reader::Table;
use router_common::gateway::MAX_GATEWAYS;

const INTERFACE_ALLOWED: &str =
    "the name of an Ethernet interface: 1 to 15 characters without space, '/' and ':', not \"lo\"";

/// An interface whose arriving packets are captured before the host forwards them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySection {
    interface: String,
    hook: Hook,
    sink: Sink,
}

/// Where packets are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// As [`Hook::Tc`], where the kernel can and the sink is [`Sink::Ring`]; else as [`Hook::Xdp`].
    #[default]
    Auto,
    /// Behind the kernel's merging of frames, which makes one packet of many of a flow.
    Tc,
    /// Before the kernel does anything with a frame.
    Xdp,
}

/// How captured packets reach the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// Packets go through the workers' ring buffers.
    #[default]
    Ring,
    /// Packets go through AF_XDP sockets, zero-copy where the driver can.
    AfXdp,
    /// Packets go through AF_XDP sockets where they are zero-copy, else through the ring buffers.
    Auto,
}

impl GatewaySection {
    /// Returns the name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Returns where packets are captured.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Returns how captured packets reach the workers.
    pub fn sink(&self) -> Sink {
        self.sink
    }
}

/// The section as read, with the places that later checks name.
pub(super) struct RawGateway {
    interface: Option<Located<String>>,
    hook: Hook,
    sink: Sink,
    place: Place,
}

impl RawGateway {
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let place = table.place().clone();
        let interface = table.required_string("interface", INTERFACE_ALLOWED, problems);
        if let Some(Located { place, value }) = &interface
            && !names_an_interface(value)
        {
            problems.add(
                place,
                format!("{value:?} cannot name an interface"),
                INTERFACE_ALLOWED,
            );
        }
        let hook = hook(&mut table, problems);
        let sink = sink(&mut table, problems);
        table.finish(problems);
        if (hook, sink) == (Hook::Tc, Sink::AfXdp) {
            problems.add(
                &place,
                "AF_XDP sockets get nothing from the hook \"tc\"",
                "sink = \"ring\", or hook = \"xdp\"",
            );
        }
        Self {
            interface,
            hook,
            sink,
            place,
        }
    }

    /// Returns the name of the interface; `None` when the section names none, which was reported.
    pub(super) fn validated(self) -> Option<GatewaySection> {
        Some(GatewaySection {
            interface: self.interface?.value,
            hook: self.hook,
            sink: self.sink,
        })
    }
}

/// Checks the gateways against each other and the device.
pub(super) fn check(gateways: &[RawGateway], device: &RawDevice, problems: &mut Problems) {
    if let Some(first_too_many) = gateways.get(MAX_GATEWAYS as usize) {
        let wrong = format!("there are {} gateways", gateways.len());
        let allowed = format!("at most {MAX_GATEWAYS} gateways");
        problems.add(&first_too_many.place, wrong, allowed);
    }
    let mut seen: Vec<&Located<String>> = Vec::new();
    for interface in gateways.iter().filter_map(|gateway| gateway.interface.as_ref()) {
        let name = &interface.value;
        if let Some(earlier) = seen.iter().find(|earlier| earlier.value == *name) {
            let wrong = format!("{name} is also {}", earlier.place.seen_from(&interface.place));
            problems.add(&interface.place, wrong, "one section per interface");
        } else {
            seen.push(interface);
        }
        if name == device.name() {
            let wrong = format!("{name} is this node's own device");
            problems.add(&interface.place, wrong, "an interface of a local network");
        }
    }
}

fn hook(table: &mut Table<'_>, problems: &mut Problems) -> Hook {
    const ALLOWED: &str = "\"auto\", \"tc\" or \"xdp\"";
    let values = [("auto", Hook::Auto), ("tc", Hook::Tc), ("xdp", Hook::Xdp)];
    let hook = table.choice("hook", &values, ("is no hook", ALLOWED), problems);
    hook.unwrap_or_default()
}

fn sink(table: &mut Table<'_>, problems: &mut Problems) -> Sink {
    const ALLOWED: &str = "\"ring\", \"af_xdp\" or \"auto\"";
    let values = [
        ("ring", Sink::Ring),
        ("af_xdp", Sink::AfXdp),
        ("auto", Sink::Auto),
    ];
    let sink = table.choice("sink", &values, ("is no sink", ALLOWED), problems);
    sink.unwrap_or_default()
}

/// Returns whether the kernel takes the name (`dev_valid_name`) and it is not the loopback interface, at which nothing
/// arrives.
pub(super) fn names_an_interface(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && !name
            .bytes()
            .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte))
        && ![".", "..", "lo"].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const DEVICE: &str = "[device]\naddresses = ['10.42.0.1/24']\n";

    fn interfaces(sections: &str) -> Result<Vec<String>, Vec<String>> {
        match Config::parse(&format!("{DEVICE}{sections}"), Path::new("sr.toml")) {
            Ok(config) => Ok(config
                .gateways()
                .iter()
                .map(|gateway| gateway.interface().to_owned())
                .collect()),
            Err(error) => Err(error.to_string().lines().map(str::to_owned).collect()),
        }
    }

    #[test]
    fn gateways_are_read_in_the_order_of_the_file() {
        let text = "[[gateway]]\ninterface = 'lan0'\n[[gateway]]\ninterface = 'eth1.5'\n";

        assert_eq!(interfaces(text).unwrap(), ["lan0", "eth1.5"]);
        assert_eq!(interfaces("").unwrap(), [""; 0]);
    }

    #[test]
    fn an_interface_is_named_once_and_is_not_the_device() {
        let text = "[[gateway]]\ninterface = 'lan0'\n[[gateway]]\ninterface = 'lan0'\n[[gateway]]\ninterface = 'sr0'\n";

        assert_eq!(
            interfaces(text).unwrap_err(),
            [
                "sr.toml:6: gateway[1].interface: lan0 is also gateway[0].interface (line 4) (allowed: one section per \
                 interface)",
                "sr.toml:8: gateway[2].interface: sr0 is this node's own device (allowed: an interface of a local \
                 network)",
            ]
        );
    }

    #[test]
    fn a_section_has_a_name_that_can_be_one_and_nothing_unknown() {
        for name in [
            "",
            ".",
            "..",
            "lo",
            "a/b",
            "a b",
            "a:b",
            "eth%d",
            "sixteen-letters!",
        ] {
            let found = interfaces(&format!("[[gateway]]\ninterface = '{name}'\n")).unwrap_err();

            assert_eq!(found.len(), 1, "{name:?}: {found:?}");
            assert!(
                found[0].starts_with(&format!(
                    "sr.toml:4: gateway[0].interface: {name:?} cannot name an interface"
                )),
                "{found:?}"
            );
        }
        let found = interfaces("[[gateway]]\nname = 'lan0'\n").unwrap_err();
        assert!(
            found[0].starts_with("sr.toml:3: gateway[0].interface: missing"),
            "{found:?}"
        );
        assert_eq!(
            found[1],
            "sr.toml:4: gateway[0].name: unknown field (allowed: interface, hook, sink)"
        );
    }

    #[test]
    fn a_sink_is_one_of_three() {
        let text = "[[gateway]]\ninterface = 'a'\n[[gateway]]\ninterface = 'b'\nsink = 'ring'\n[[gateway]]\ninterface \
                    = 'c'\nsink = 'af_xdp'\n[[gateway]]\ninterface = 'd'\nsink = 'auto'\n";
        let config = Config::parse(&format!("{DEVICE}{text}"), Path::new("sr.toml")).unwrap();
        let sinks: Vec<Sink> = config.gateways().iter().map(GatewaySection::sink).collect();

        assert_eq!(sinks, [Sink::Ring, Sink::Ring, Sink::AfXdp, Sink::Auto]);
        assert_eq!(
            interfaces("[[gateway]]\ninterface = 'lan0'\nsink = 'pipe'\n").unwrap_err(),
            ["sr.toml:5: gateway[0].sink: \"pipe\" is no sink (allowed: \"ring\", \"af_xdp\" or \"auto\")"]
        );
    }

    #[test]
    fn a_hook_is_one_of_three_and_sockets_need_xdp() {
        let text = "[[gateway]]\ninterface = 'a'\n[[gateway]]\ninterface = 'b'\nhook = 'auto'\nsink = 'af_xdp'\n[[gateway]]\n\
                    interface = 'c'\nhook = 'tc'\nsink = 'auto'\n[[gateway]]\ninterface = 'd'\nhook = 'xdp'\nsink = 'af_xdp'\n";
        let config = Config::parse(&format!("{DEVICE}{text}"), Path::new("sr.toml")).unwrap();
        let hooks: Vec<Hook> = config.gateways().iter().map(GatewaySection::hook).collect();

        assert_eq!(hooks, [Hook::Auto, Hook::Auto, Hook::Tc, Hook::Xdp]);
        assert_eq!(
            interfaces("[[gateway]]\ninterface = 'lan0'\nhook = 'ebpf'\n").unwrap_err(),
            ["sr.toml:5: gateway[0].hook: \"ebpf\" is no hook (allowed: \"auto\", \"tc\" or \"xdp\")"]
        );
        assert_eq!(
            interfaces("[[gateway]]\ninterface = 'lan0'\nhook = 'tc'\nsink = 'af_xdp'\n").unwrap_err(),
            [
                "sr.toml:3: gateway[0]: AF_XDP sockets get nothing from the hook \"tc\" (allowed: sink = \"ring\", or hook = \
                 \"xdp\")"
            ]
        );
    }

    #[test]
    fn more_gateways_than_the_table_holds_are_reported() {
        let mut text = String::new();
        for index in 0..=MAX_GATEWAYS {
            writeln!(text, "[[gateway]]\ninterface = 'lan{index}'").unwrap();
        }

        assert_eq!(
            interfaces(&text).unwrap_err(),
            ["sr.toml:131: gateway[64]: there are 65 gateways (allowed: at most 64 gateways)"]
        );
    }
}
