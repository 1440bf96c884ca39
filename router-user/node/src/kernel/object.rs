//! The loaded object: programs and maps of one device, each with its owner.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use object::{Object, ObjectSection};
use tracing::warn;

use super::counters::KernelCounters;
use super::error::KernelError;
use super::flows::KernelFlows;
use super::gateway::{AttachedGateway, GatewayHook, GatewayInterface};
use super::gateway_table::KernelGateways;
use super::pins::Pins;
use super::prefixes::KernelPrefixes;
use super::pressure::KernelPressure;
use super::programs::{KernelPrograms, egress};
use super::rings::KernelRings;
use super::settings::KernelSettings;
use super::skb_layout;
use super::slots::KernelSlots;
use router_common::flow_hash::HashKey;
use router_common::settings::Settings;
use router_common::skb_layout::SkbLayout;
use router_common::{ABI_VERSION, names};
use stream_router_engine::causes::with_sources;

const ABI_SECTION: &str = "stream_router_abi";

/// The mode of the kernel's lockdown stands in brackets there (kernel: `security/lockdown/lockdown.c`).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/stream-router.o"));

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The device whose egress is captured.
    pub device: String,
    /// Size of each worker's ring in bytes: a power of two, a multiple of the page size.
    pub ring_bytes: u32,
    /// MTU of the device in bytes.
    pub device_mtu: u32,
    /// Idle time after which a flow counts as gone.
    pub flow_ttl: Duration,
    /// Flows the connection table has room for.
    pub max_connections: u32,
    /// Where the BPF file system is.
    pub bpffs: PathBuf,
}

/// The kernel side of one device. Dropping it detaches and unpins.
pub struct Kernel {
    /// The programs, and where they are attached. They are dropped first.
    pub programs: KernelPrograms,
    /// Which destinations belong to which peer.
    pub prefixes: KernelPrefixes,
    /// Which worker new flows get.
    pub slots: KernelSlots,
    /// Where packets go for each worker.
    pub rings: KernelRings,
    /// The flows that the programs know.
    pub flows: KernelFlows,
    /// What the programs are told.
    pub settings: KernelSettings,
    /// For which peers the programs hold packets back.
    pub pressure: KernelPressure,
    /// What the programs have counted.
    pub counters: KernelCounters,
    /// At which interfaces the gateway program captures.
    pub gateways: KernelGateways,
    /// Whether the egress program sees what of a packet its sender left open; else why not.
    pub offloads: Result<(), String>,
}

impl Kernel {
    /// Loads the object; there are no rings, and nothing is attached yet.
    ///
    /// # Errors
    /// [`KernelError`] names the part that is missing or refused.
    pub fn load(config: &KernelConfig) -> Result<Self, KernelError> {
        check_abi(OBJECT)?;
        let pins = Pins::take(&config.bpffs, &config.device)?;
        let (mut ebpf, offloads) = load_seeing(config, skb_layout::running())?;
        if let Err(why) = &offloads {
            warn!(
                why,
                "the egress program cannot see a packet's offloads: UDP and tunnel packets with finished checksums take the \
                 slower way through the device"
            );
        }
        if let Some(pins) = &pins {
            pin(&mut ebpf, pins)?;
        }
        Ok(Self {
            settings: KernelSettings::write(&mut ebpf, settings(config))?,
            prefixes: KernelPrefixes::take(&mut ebpf)?,
            slots: KernelSlots::take(&mut ebpf)?,
            rings: KernelRings::take(&mut ebpf, config.ring_bytes)?,
            flows: KernelFlows::take(&mut ebpf)?,
            pressure: KernelPressure::map(&ebpf)?,
            counters: KernelCounters::take(&mut ebpf)?,
            gateways: KernelGateways::take(&mut ebpf)?,
            programs: KernelPrograms::new(ebpf, pins, config.device.clone()),
            offloads,
        })
    }

    /// Begins to capture what arrives at `interface` by `hook`; by XDP in the driver, or where that is refused in the receive
    /// path.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_gateway(
        &self,
        interface: &GatewayInterface,
        hook: GatewayHook,
    ) -> Result<AttachedGateway, KernelError> {
        self.programs.load_gateway(hook)?;
        self.gateways.add(interface.index, interface.address)?;
        self.programs.attach_gateway(interface, hook)
    }
}

/// Loads the egress program so that it sees a packet's offloads, or else without, and says why.
fn load_seeing(
    config: &KernelConfig,
    layout: Result<SkbLayout, String>,
) -> Result<(Ebpf, Result<(), String>), KernelError> {
    let why = match layout.map(|layout| load_egress(config, layout)) {
        Ok(Ok(ebpf)) => return Ok((ebpf, Ok(()))),
        Ok(Err(error)) => refusal(&error, fs::read_to_string(LOCKDOWN).ok().as_deref()),
        Err(why) => why,
    };
    // What else the kernel refuses it refuses again.
    Ok((load_egress(config, SkbLayout::default())?, Err(why)))
}

/// Says why the kernel refuses a program that reads its memory, by the state of its lockdown.
fn refusal(error: &KernelError, lockdown: Option<&str>) -> String {
    if lockdown.is_some_and(|modes| modes.contains("[confidentiality]")) {
        return "the kernel is locked down in confidentiality mode, in which no program may read its memory"
            .into();
    }
    // The verifier's log ends with what it is about, and then how much it has looked at.
    let text = with_sources(error);
    let mut lines = text.lines().map(str::trim).rev();
    let last = lines.find(|line| !line.is_empty() && !line.starts_with("processed "));
    format!("the kernel refuses it: {}", last.unwrap_or("it does not say why"))
}

/// Creates the maps and loads the egress program, for a kernel with this layout of its socket buffers.
fn load_egress(config: &KernelConfig, skb_layout: SkbLayout) -> Result<Ebpf, KernelError> {
    let mut ebpf = EbpfLoader::new()
        .override_global(names::SKB_LAYOUT, &skb_layout, true)
        .map_max_entries(names::CONNECTIONS, config.max_connections)
        .load(OBJECT)
        .map_err(|error| KernelError::load("the maps of the eBPF object", error))?;
    egress(&mut ebpf)?
        .load()
        .map_err(|error| KernelError::load("the egress program", error))?;
    Ok(ebpf)
}

fn check_abi(object: &[u8]) -> Result<(), KernelError> {
    let file =
        object::File::parse(object).map_err(|error| KernelError::load("an unreadable object", error))?;
    let section = file
        .section_by_name(ABI_SECTION)
        .and_then(|section| section.data().ok());
    let found = section.and_then(|data| Some(u32::from_le_bytes(*data.first_chunk()?)));
    if found == Some(ABI_VERSION) {
        Ok(())
    } else {
        Err(KernelError::Abi {
            found,
            needed: ABI_VERSION,
        })
    }
}

fn pin(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), KernelError> {
    // The kernel keeps names with a dot for itself, and what they hold is not for operators.
    for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
        pins.pin(name, |path| map.pin(path))?;
    }
    let program = egress(ebpf)?;
    pins.pin(names::PROGRAM_EGRESS, |path| program.pin(path))
}

fn settings(config: &KernelConfig) -> Settings {
    Settings {
        hash_key: HashKey {
            k0: rand::random(),
            k1: rand::random(),
        },
        flow_ttl_ns: u64::try_from(config.flow_ttl.as_nanos()).unwrap_or(u64::MAX),
        device_mtu: config.device_mtu,
        peers_version: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_lockdown_or_what_the_kernel_said_last() {
        let error = KernelError::load(
            "the egress program",
            std::io::Error::other(
                "verifier\n0: call\nunknown func bpf_probe_read_kernel#113\nprocessed 1 insns\n\n",
            ),
        );

        assert_eq!(
            refusal(&error, Some("none integrity [confidentiality]\n")),
            "the kernel is locked down in confidentiality mode, in which no program may read its memory"
        );
        for lockdown in [None, Some("none [integrity] confidentiality\n")] {
            assert_eq!(
                refusal(&error, lockdown),
                "the kernel refuses it: unknown func bpf_probe_read_kernel#113"
            );
        }
    }
}
