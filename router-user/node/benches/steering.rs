//! What the egress program costs per packet, by BPF_PROG_TEST_RUN; needs root.
//!
//! `hot` runs one flow many times in a row: caches hold all it touches. `cold` runs a flow once, each time another one,
//! and takes off what a run costs that leaves at its first byte; the kernel's clock reads are in both.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::tc::SchedClassifier;
use aya::programs::{TestRun, TestRunOptions};
use etherparse::err::packet::BuildWriteError;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use router_common::names;
use router_common::reason::Reason;
use stream_router_engine::slots::SlotTable;
use stream_router_node::kernel::{BPFFS, Kernel, KernelConfig, RingConsumer};

const FLOWS: [u32; 3] = [1_000, 100_000, 1_000_000];
const N_WORKERS: u32 = 8;
const RING_BYTES: u32 = 4 * 1024 * 1024;
/// Records of [`COPIED_LEN`] bytes that a ring holds, with a margin.
const REPEAT: u32 = 10_000;
const HOT_FLOWS: u32 = 64;
const COLD_FLOWS: u32 = 50_000;
/// A packet that is copied whole.
const COPIED_LEN: usize = 100;
/// A packet that a peer under pressure refuses, after parser, table and slot and before the copy.
const STEERED_LEN: usize = 300;
const PEER: u32 = 0;
const CASES: [Case; 3] = [
    Case {
        name: "parse, table and slot",
        packet: |flow| segment(flow, STEERED_LEN),
        earlier: None,
        pressed: true,
        counted: Reason::PeerPressure,
    },
    Case {
        name: "with the copy of 100 B",
        packet: |flow| segment(flow, COPIED_LEN),
        earlier: None,
        pressed: false,
        counted: Reason::Captured,
    },
    Case {
        name: "a later fragment of 100 B",
        packet: |flow| fragment(flow, LATER),
        earlier: Some(|flow| fragment(flow, FIRST)),
        pressed: false,
        counted: Reason::Captured,
    },
];
/// Flags and offset of an IPv4 header: more fragments follow; the last one, 80 bytes on.
const FIRST: u16 = 1 << 13;
const LATER: u16 = 10;

/// What is measured: how a packet of a flow is counted, behind an `earlier` one that is not timed.
struct Case {
    name: &'static str,
    packet: fn(u32) -> Vec<u8>,
    earlier: Option<fn(u32) -> Vec<u8>>,
    pressed: bool,
    counted: Reason,
}

fn main() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark loads eBPF programs into the kernel, so it needs root"
    );
    isolate()?;
    println!("ns per packet              live flows |      hot      cold");
    for n_flows in FLOWS {
        let mut bench = Bench::new(n_flows)?;
        bench.fill()?;
        for case in &CASES {
            bench.report(case)?;
        }
    }
    Ok(())
}

struct Bench {
    n_flows: u32,
    kernel: Kernel,
    rings: Vec<RingConsumer>,
    program: SchedClassifier,
}

impl Bench {
    fn new(n_flows: u32) -> Result<Self> {
        let kernel = Kernel::load(&KernelConfig {
            device: "sr-bench0".into(),
            ring_bytes: RING_BYTES,
            device_mtu: 1420,
            flow_ttl: Duration::from_secs(3600),
            // The kernel keeps some free entries for each CPU.
            max_connections: n_flows * 5 / 4 + 4096,
            bpffs: BPFFS.into(),
        })?;
        let rings = (0..N_WORKERS).map(|worker| kernel.rings.open(worker));
        let rings = rings.collect::<Result<_, _>>()?;
        kernel.slots.write(SlotTable::new(N_WORKERS).iter())?;
        kernel.prefixes.add([("10.1.0.0/16".parse()?, PEER)])?;
        let pins = kernel.programs.pin_directory().context("no pins")?;
        let program = SchedClassifier::from_pin(pins.join(names::PROGRAM_EGRESS))?;
        Ok(Self {
            n_flows,
            kernel,
            rings,
            program,
        })
    }

    /// Makes every flow live.
    fn fill(&mut self) -> Result<()> {
        for flow in 0..self.n_flows {
            self.run(&segment(flow, 64), 1)?;
            if flow % 1000 == 0 {
                self.drain();
            }
        }
        self.drain();
        Ok(())
    }

    fn report(&mut self, case: &Case) -> Result<()> {
        self.kernel.pressure.switch(PEER)(case.pressed);
        let before = self.counted(case.counted)?;
        let hot = self.hot(case)?;
        let cold = self.cold(case)?;
        let n_earlier = case
            .earlier
            .map_or(0, |_| u64::from(HOT_FLOWS) + u64::from(COLD_FLOWS));
        let n_runs = n_earlier + u64::from(HOT_FLOWS) * u64::from(REPEAT) + u64::from(COLD_FLOWS);
        let counted = self.counted(case.counted)? - before;
        ensure!(
            counted == n_runs,
            "{counted} of {n_runs} packets were {}",
            case.counted.name()
        );
        println!("{:<25} {:>11} | {hot:>8.0} {cold:>9.0}", case.name, self.n_flows);
        Ok(())
    }

    fn hot(&mut self, case: &Case) -> Result<f64> {
        let mut total = Duration::ZERO;
        for flow in self.sample(HOT_FLOWS) {
            total += self.run_of(case, flow, REPEAT)?;
            self.drain();
        }
        Ok(total.as_nanos() as f64 / f64::from(HOT_FLOWS))
    }

    fn cold(&mut self, case: &Case) -> Result<f64> {
        let not_ip = [0; COPIED_LEN];
        let (mut total, mut empty) = (Duration::ZERO, Duration::ZERO);
        for (i, flow) in self.sample(COLD_FLOWS).enumerate() {
            total += self.run_of(case, flow, 1)?;
            empty += self.run(&not_ip, 1)?;
            if i % 1000 == 0 {
                self.drain();
            }
        }
        self.drain();
        Ok((total.as_nanos() as f64 - empty.as_nanos() as f64) / f64::from(COLD_FLOWS))
    }

    /// Runs the packet of a flow `repeat` times, and says how long one took.
    fn run_of(&self, case: &Case, flow: u32, repeat: u32) -> Result<Duration> {
        if let Some(earlier) = case.earlier {
            self.run(&earlier(flow), 1)?;
        }
        self.run(&(case.packet)(flow), repeat)
    }

    /// `n` flows from all over the table, in an order that no cache foresees.
    fn sample(&self, n: u32) -> impl Iterator<Item = u32> + use<> {
        let n_flows = u64::from(self.n_flows);
        (0..u64::from(n)).map(move |i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % n_flows) as u32)
    }

    fn run(&self, packet: &[u8], repeat: u32) -> Result<Duration> {
        let options = TestRunOptions {
            data_in: Some(packet),
            repeat,
            ..TestRunOptions::new()
        };
        Ok(self.program.test_run(options)?.duration)
    }

    fn drain(&mut self) {
        for ring in &mut self.rings {
            ring.drain(usize::MAX, |_| ());
        }
    }

    fn counted(&self, reason: Reason) -> Result<u64> {
        let counters = self.kernel.counters.read()?;
        let found = counters.iter().find(|(counter, _)| *counter == reason);
        Ok(found.context("every reason has a counter")?.1)
    }
}

/// A TCP segment of `len` bytes: one flow per number.
fn segment(flow: u32, len: usize) -> Vec<u8> {
    let port = 1000 + u16::from(flow.to_be_bytes()[3]);
    let builder = ip(flow).tcp(port, 53, 1, 1024);
    let payload = vec![0; len - builder.size(0)];
    written(|packet| builder.write(packet, &payload))
}

/// A part of a UDP datagram, with these flags and offset: one datagram per number.
fn fragment(flow: u32, flags_and_offset: u16) -> Vec<u8> {
    let builder = ip(flow).udp(1000, 53);
    let payload = vec![0; COPIED_LEN - builder.size(0)];
    let mut packet = written(|packet| builder.write(packet, &payload));
    packet[4..6].copy_from_slice(&(flow as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    packet
}

fn ip(flow: u32) -> PacketBuilderStep<IpHeaders> {
    let [_, a, b, _] = flow.to_be_bytes();
    PacketBuilder::ipv4([10, 9, a, b], [10, 1, 0, 2], 64)
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildWriteError>) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&mut packet).expect("a vector takes every byte");
    packet
}

fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("cannot make namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("cannot keep mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpffs")
}
