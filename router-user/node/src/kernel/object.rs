//! The loaded object: programs, maps and rings of one device.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::SchedClassifier;
use aya::programs::tc::SchedClassifierLinkId;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use object::{Object, ObjectSection};

use super::attach::attach_egress;
use super::error::KernelError;
use super::mapped::Mapped;
use super::maps::{PRESSURE_STRIDE, map, map_failed};
use super::pins::Pins;
use router_common::flow_hash::HashKey;
use router_common::peer::MAX_PEERS;
use router_common::settings::Settings;
use router_common::slots::MAX_WORKERS;
use router_common::wake::WakeFlag;
use router_common::{ABI_VERSION, names};

const ABI_SECTION: &str = "stream_router_abi";

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

/// Programs, maps and rings of one device. Dropping it detaches and unpins.
pub struct Kernel {
    ebpf: Mutex<Ebpf>,
    link: Mutex<Option<SchedClassifierLinkId>>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) pressure: Arc<Mapped>,
    pub(super) wake: Arc<Mapped>,
    pub(super) settings: Mapped,
    pub(super) ring_bytes: u32,
    pins: Option<Pins>,
    device: String,
}

impl Kernel {
    /// Loads the object; there are no rings, and nothing is attached yet.
    ///
    /// # Errors
    /// [`KernelError`] names the part that is missing or refused.
    pub fn load(config: &KernelConfig) -> Result<Self, KernelError> {
        check_abi(OBJECT)?;
        let pins = Pins::take(&config.bpffs, &config.device)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::CONNECTIONS, config.max_connections)
            .load(OBJECT)
            .map_err(|error| KernelError::load("the maps of the eBPF object", error))?;
        egress(&mut ebpf)?
            .load()
            .map_err(|error| KernelError::load("the egress program", error))?;
        if let Some(pins) = &pins {
            pin(&mut ebpf, pins.directory())?;
        }

        write_settings(&mut ebpf, config)?;
        let wake = Arc::new(map_memory(
            &mut ebpf,
            names::WAKE,
            MAX_WORKERS as usize * size_of::<WakeFlag>(),
        )?);
        let pressure = Arc::new(map_memory(
            &mut ebpf,
            names::PRESSURE,
            MAX_PEERS as usize * PRESSURE_STRIDE,
        )?);
        let settings = map_memory(&mut ebpf, names::SETTINGS, size_of::<Settings>())?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, names::COUNTERS)?)
            .map_err(|error| map_failed("open", names::COUNTERS)(error))?;
        Ok(Self {
            ebpf: Mutex::new(ebpf),
            link: Mutex::new(None),
            counters,
            pressure,
            wake,
            settings,
            ring_bytes: config.ring_bytes,
            pins,
            device: config.device.clone(),
        })
    }

    /// Begins to capture.
    ///
    /// # Errors
    /// The kernel refuses the hook.
    pub fn attach(&self) -> Result<(), KernelError> {
        let link = attach_egress(egress(&mut self.lock())?, &self.device)?;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(())
    }

    /// Ends capturing; rings keep what they hold.
    ///
    /// # Errors
    /// The kernel refuses to detach.
    pub fn detach(&self) -> Result<(), KernelError> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(link) = link else { return Ok(()) };
        egress(&mut self.lock())?
            .detach(link)
            .map_err(|error| KernelError::Attach {
                device: self.device.clone(),
                source: Box::new(error),
            })
    }

    /// Where programs and maps are pinned, if they are.
    pub fn pin_directory(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::directory)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(names::PROGRAM_EGRESS);
    program
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing {
            name: names::PROGRAM_EGRESS,
        })
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing { name })
}

fn pin(ebpf: &mut Ebpf, directory: &Path) -> Result<(), KernelError> {
    for (name, map) in ebpf.maps() {
        let path = directory.join(name);
        map.pin(&path).map_err(|error| KernelError::Pins {
            action: "pin",
            path,
            source: Box::new(error),
        })?;
    }
    let path = directory.join(names::PROGRAM_EGRESS);
    egress(ebpf)?.pin(&path).map_err(|error| KernelError::Pins {
        action: "pin",
        path,
        source: Box::new(error),
    })
}

fn write_settings(ebpf: &mut Ebpf, config: &KernelConfig) -> Result<(), KernelError> {
    let settings = Settings {
        hash_key: HashKey {
            k0: rand::random(),
            k1: rand::random(),
        },
        flow_ttl_ns: u64::try_from(config.flow_ttl.as_nanos()).unwrap_or(u64::MAX),
        device_mtu: config.device_mtu,
        peers_version: 0,
    };
    Array::try_from(map(ebpf, names::SETTINGS)?)
        .and_then(|mut map| map.set(0, settings, 0))
        .map_err(map_failed("write", names::SETTINGS))
}

fn map_memory(ebpf: &mut Ebpf, name: &'static str, len: usize) -> Result<Mapped, KernelError> {
    let map = ebpf.map(name).ok_or(KernelError::Missing { name })?;
    let Map::Array(data) = map else {
        return Err(KernelError::Missing { name });
    };
    Mapped::new(data.fd().as_fd(), 0, len, true).map_err(|source| KernelError::Map {
        action: "map into memory",
        map: name,
        source: source.into(),
    })
}
