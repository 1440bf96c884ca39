//! A loaded program with its maps and rings, and what running it does to them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::tc::SchedClassifier;
use aya::programs::{TestRun, TestRunOptions};
use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::names;
use router_common::reason::Reason;
use router_common::record::RecordHeader;
use router_common::settings::Settings;
use stream_router_engine::slots::SlotTable;
use stream_router_node::kernel::{BPFFS, Kernel, KernelConfig, RingConsumer};

/// Verdicts, as in `linux/pkt_cls.h`: left to the device, refused, captured.
pub(crate) const OK: u32 = 0;
pub(crate) const SHOT: u32 = 2;
pub(crate) const STOLEN: u32 = 4;

pub(crate) const MTU: u32 = 1420;
pub(crate) const DEVICE: &str = "sr-bench0";
/// Prefixes of the peers, the more specific ones inside the others.
pub(crate) const PREFIXES: [(&str, u32); 4] = [
    ("10.1.0.0/16", 0),
    ("10.1.2.0/24", 1),
    ("fd01::/16", 2),
    ("fd01:2::/32", 3),
];

const RUN_CONTEXT_LEN: usize = 192;
/// Where `struct __sk_buff` has these.
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

/// How to load.
pub(crate) struct Plan {
    pub(crate) device_mtu: u32,
    pub(crate) n_workers: u32,
    pub(crate) ring_bytes: u32,
    pub(crate) flow_ttl: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            device_mtu: MTU,
            n_workers: 4,
            ring_bytes: 256 * 1024,
            flow_ttl: Duration::from_secs(300),
        }
    }
}

/// What a worker finds in its ring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) worker: u32,
    pub(crate) header: RecordHeader,
    pub(crate) packet: Vec<u8>,
}

/// What a packet did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    /// Counters that moved, and by how much.
    pub(crate) counted: Vec<(Reason, u64)>,
    pub(crate) records: Vec<Record>,
}

impl Outcome {
    /// The one record of a captured packet.
    pub(crate) fn captured(mut self) -> Result<Record> {
        ensure!(self.verdict == STOLEN, "verdict {}", self.verdict);
        let alone = (Reason::FragmentAlone, 1);
        self.counted.retain(|counted| *counted != alone);
        ensure!(
            self.counted == [(Reason::Captured, 1)],
            "counted {:?}",
            self.counted
        );
        ensure!(self.records.len() == 1, "{} records", self.records.len());
        self.records.pop().context("one record")
    }
}

/// The program in network and mount namespaces of the calling thread, which end with it; not attached to anything.
pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) rings: Vec<RingConsumer>,
    pub(crate) connections: HashMap<MapData, FlowKey, FlowEntry>,
    pub(crate) settings: Settings,
    program: SchedClassifier,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "this test loads eBPF programs into the kernel, so it needs root"
        );
        isolate()?;
        let kernel = Kernel::load(&KernelConfig {
            device: DEVICE.into(),
            device_mtu: plan.device_mtu,
            ring_bytes: plan.ring_bytes,
            flow_ttl: plan.flow_ttl,
            max_connections: 16_384,
            bpffs: BPFFS.into(),
        })?;
        let rings = (0..plan.n_workers).map(|worker| kernel.rings.open(worker));
        let rings = rings.collect::<Result<Vec<_>, _>>()?;
        kernel.slots.write(SlotTable::new(plan.n_workers).iter())?;
        kernel.prefixes.add(prefixes(&PREFIXES)?)?;
        let pins = kernel.programs.pin_directory().context("no pins")?;
        let program = SchedClassifier::from_pin(pins.join(names::PROGRAM_EGRESS))?;
        let connections = HashMap::try_from(open_map(pins, names::CONNECTIONS)?)?;
        let settings = Array::<_, Settings>::try_from(open_map(pins, names::SETTINGS)?)?.get(&0, 0)?;
        Ok(Self {
            kernel,
            rings,
            connections,
            settings,
            program,
        })
    }

    /// Returns an array of the program, as it is seen through its pin.
    pub(crate) fn array<T: Pod>(&self, name: &str) -> Result<Array<MapData, T>> {
        let pins = self.kernel.programs.pin_directory().context("no pins")?;
        Ok(Array::try_from(open_map(pins, name)?)?)
    }

    /// Runs the program on a packet and returns its verdict alone; the record stays in its ring.
    pub(crate) fn verdict(&self, packet: &[u8]) -> Result<u32> {
        self.test_run(packet, None)
    }

    /// Runs the program on a packet and drains all rings.
    pub(crate) fn run(&mut self, packet: &[u8]) -> Result<Outcome> {
        self.outcome(packet, None)
    }

    /// Runs the program on a super-packet, of segments with `gso_size` bytes of payload, and drains all rings.
    pub(crate) fn run_gso(&mut self, packet: &[u8], gso_size: u32) -> Result<Outcome> {
        let mut context = [0; RUN_CONTEXT_LEN];
        let segments = (packet.len() as u32).div_ceil(gso_size);
        context[GSO_SEGS..GSO_SEGS + 4].copy_from_slice(&segments.to_ne_bytes());
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        self.outcome(packet, Some(&context))
    }

    /// Reads everything in all rings.
    pub(crate) fn drain(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for (worker, ring) in (0..).zip(&mut self.rings) {
            ring.drain(usize::MAX, |bytes| records.push(record(worker, bytes)));
        }
        records
    }

    /// Counters that moved since they were `before`.
    pub(crate) fn counted_since(&self, before: &[(Reason, u64)]) -> Result<Vec<(Reason, u64)>> {
        let now = self.kernel.counters.read()?;
        let moved = now
            .iter()
            .zip(before)
            .map(|(now, before)| (now.0, now.1 - before.1));
        Ok(moved.filter(|(_, n)| *n != 0).collect())
    }

    /// Flows in the table.
    pub(crate) fn n_flows(&self) -> usize {
        self.connections.keys().count()
    }

    fn outcome(&mut self, packet: &[u8], context: Option<&[u8]>) -> Result<Outcome> {
        let before = self.kernel.counters.read()?;
        let verdict = self.test_run(packet, context)?;
        Ok(Outcome {
            verdict,
            counted: self.counted_since(&before)?,
            records: self.drain(),
        })
    }

    /// A run begins at the first byte given: the kernel takes the first 14 for an Ethernet header, and for a
    /// classifier puts them back (`net/bpf/test_run.c`).
    fn test_run(&self, packet: &[u8], context: Option<&[u8]>) -> Result<u32> {
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: context,
            ..TestRunOptions::new()
        };
        Ok(self.program.test_run(options)?.return_value)
    }
}

pub(crate) fn prefixes(table: &[(&str, u32)]) -> Result<Vec<(IpNet, u32)>> {
    let parse = |(prefix, peer): &(&str, u32)| Ok((prefix.parse()?, *peer));
    table.iter().map(parse).collect()
}

fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("cannot make namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("cannot keep mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpffs")
}

fn open_map(pins: &Path, name: &str) -> Result<Map> {
    let data = MapData::from_pin(pins.join(name)).with_context(|| format!("cannot open {name}"))?;
    Ok(Map::from_map_data(data)?)
}

/// A record may have room behind a short packet.
pub(crate) fn record(worker: u32, bytes: &[u8]) -> Record {
    let (header, packet) = bytes.split_at(RecordHeader::LEN);
    let header: RecordHeader = bytemuck::pod_read_unaligned(header);
    Record {
        worker,
        header,
        packet: packet[..header.frame.len as usize].to_vec(),
    }
}
