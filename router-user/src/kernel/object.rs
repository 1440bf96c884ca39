//! The loaded object: programs, maps and rings of one device.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::programs::SchedClassifier;
use aya::programs::tc::SchedClassifierLinkId;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use ipnet::IpNet;
use object::{Object, ObjectSection};
use router_common::flow_hash::HashKey;
use router_common::peer::MAX_PEERS;
use router_common::reason::Reason;
use router_common::settings::Settings;
use router_common::slots::{self, MAX_WORKERS, SLOT_COUNT};
use router_common::wake::WakeFlag;
use router_common::{ABI_VERSION, names};

use super::attach::attach_egress;
use super::error::KernelError;
use super::mapped::Mapped;
use super::pins::Pins;
use super::ring::RingConsumer;

const ABI_SECTION: &str = "stream_router_abi";

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/stream-router.o"));

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The device whose egress is captured.
    pub device: String,
    /// Workers, 1 to [`MAX_WORKERS`].
    pub n_workers: u32,
    /// Size of each worker's ring in bytes: a power of two, a multiple of the page size.
    pub ring_bytes: u32,
    /// MTU of the device in bytes.
    pub device_mtu: u32,
    /// Idle time after which a flow counts as gone.
    pub conn_ttl: Duration,
    /// Where the BPF file system is.
    pub bpffs: PathBuf,
}

/// Programs, maps and rings of one device. Dropping it detaches and unpins.
pub struct Kernel {
    ebpf: Mutex<Ebpf>,
    link: Mutex<Option<SchedClassifierLinkId>>,
    counters: PerCpuArray<MapData, u64>,
    pressure: Arc<Mapped>,
    pins: Option<Pins>,
    device: String,
}

impl Kernel {
    /// Loads the object and makes the rings; nothing is attached yet.
    ///
    /// # Errors
    /// [`KernelError`] names the part that is missing or refused.
    pub fn load(config: &KernelConfig) -> Result<(Self, Vec<RingConsumer>), KernelError> {
        check_abi(OBJECT)?;
        let pins = Pins::take(&config.bpffs, &config.device)?;
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| KernelError::load("the maps of the eBPF object", error))?;
        egress(&mut ebpf)?
            .load()
            .map_err(|error| KernelError::load("the egress program", error))?;
        if let Some(pins) = &pins {
            pin(&mut ebpf, pins.directory())?;
        }

        write_settings(&mut ebpf, config)?;
        let n_workers = config.n_workers.clamp(1, MAX_WORKERS);
        write_slots(&mut ebpf, n_workers)?;
        let wake = Arc::new(map_memory(
            &mut ebpf,
            names::WAKE,
            MAX_WORKERS as usize * size_of::<WakeFlag>(),
        )?);
        let rings = make_rings(&mut ebpf, n_workers, config.ring_bytes, &wake)?;
        let pressure = Arc::new(map_memory(
            &mut ebpf,
            names::PRESSURE,
            MAX_PEERS as usize * PRESSURE_STRIDE,
        )?);
        let counters = PerCpuArray::try_from(take(&mut ebpf, names::COUNTERS)?)
            .map_err(|error| map_failed("open", names::COUNTERS)(error))?;
        let kernel = Self {
            ebpf: Mutex::new(ebpf),
            link: Mutex::new(None),
            counters,
            pressure,
            pins,
            device: config.device.clone(),
        };
        Ok((kernel, rings))
    }

    /// Tells the kernel which destinations belong to which peer, by index.
    ///
    /// # Errors
    /// The prefix table cannot be written.
    pub fn add_prefixes(&self, prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        let map = ebpf
            .map_mut(names::PEERS)
            .ok_or(KernelError::Missing { name: names::PEERS })?;
        let mut table: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map).map_err(map_failed("open", names::PEERS))?;
        for (prefix, peer) in prefixes {
            table
                .insert(&prefix_key(prefix), peer, 0)
                .map_err(map_failed("write", names::PEERS))?;
        }
        Ok(())
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

    /// A switch that tells the program whether to hold back packets for `peer`.
    pub fn pressure_switch(&self, peer: u32) -> impl Fn(bool) + Send + Sync + use<> {
        let pressure = self.pressure.clone();
        move |pressed| {
            if let Some(flag) = pressure.half_word(peer as usize * PRESSURE_STRIDE) {
                flag.store(pressed.into(), Relaxed);
            }
        }
    }

    /// Packets by reason, from the start.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let read = |reason: Reason| {
            let per_cpu = self
                .counters
                .get(&(reason as u32), 0)
                .map_err(map_failed("read", names::COUNTERS))?;
            Ok((reason, per_cpu.iter().sum()))
        };
        Reason::ALL.into_iter().map(read).collect()
    }

    /// Where programs and maps are pinned, if they are.
    pub fn pin_directory(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::directory)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel rounds the entries of an array up to 8 bytes.
const PRESSURE_STRIDE: usize = 8;

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

pub(super) fn prefix_key(prefix: IpNet) -> Key<[u8; 16]> {
    let (len, address) = match prefix {
        IpNet::V4(net) => (96 + net.prefix_len(), net.network().to_ipv6_mapped()),
        IpNet::V6(net) => (net.prefix_len(), net.network()),
    };
    Key::new(u32::from(len), address.octets())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing { name })
}

pub(super) fn map_failed(action: &'static str, map: &'static str) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map {
        action,
        map,
        source: Box::new(source),
    }
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
        conn_ttl_ns: u64::try_from(config.conn_ttl.as_nanos()).unwrap_or(u64::MAX),
        device_mtu: config.device_mtu,
        padding: 0,
    };
    let map = ebpf.map_mut(names::SETTINGS).ok_or(KernelError::Missing {
        name: names::SETTINGS,
    })?;
    Array::try_from(map)
        .and_then(|mut map| map.set(0, settings, 0))
        .map_err(map_failed("write", names::SETTINGS))
}

fn write_slots(ebpf: &mut Ebpf, n_workers: u32) -> Result<(), KernelError> {
    let map = ebpf
        .map_mut(names::SLOTS)
        .ok_or(KernelError::Missing { name: names::SLOTS })?;
    let mut table: Array<_, u32> = Array::try_from(map).map_err(map_failed("open", names::SLOTS))?;
    for slot in 0..SLOT_COUNT {
        table
            .set(slot, slots::worker(slot, n_workers), 0)
            .map_err(map_failed("write", names::SLOTS))?;
    }
    Ok(())
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

fn make_rings(
    ebpf: &mut Ebpf,
    n_workers: u32,
    bytes: u32,
    wake: &Arc<Mapped>,
) -> Result<Vec<RingConsumer>, KernelError> {
    let map = ebpf
        .map_mut(names::RINGS)
        .ok_or(KernelError::Missing { name: names::RINGS })?;
    let mut rings: ArrayOfMaps<_> = ArrayOfMaps::try_from(map).map_err(map_failed("open", names::RINGS))?;
    let make = |worker| {
        let ring = RingConsumer::new(worker, bytes, wake.clone()).map_err(|source| KernelError::Ring {
            worker,
            bytes,
            source,
        })?;
        rings
            .set(worker, ring.map(), 0)
            .map_err(map_failed("write", names::RINGS))?;
        Ok(ring)
    };
    (0..n_workers).map(make).collect()
}
