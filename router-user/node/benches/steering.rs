//! What the egress program costs per packet, by BPF_PROG_TEST_RUN; needs root.
//!
//! `hot` runs one flow many times in a row: caches hold all it touches. `cold` runs a flow once, each time another one,
//! and takes off what a run costs that leaves at its first byte; the kernel's clock reads are in both.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::tc::SchedClassifier;
use aya::programs::{TestRun, TestRunOptions};
use etherparse::PacketBuilder;
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

fn main() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark loads eBPF programs into the kernel, so it needs root"
    );
    isolate()?;
    println!("ns per packet             live flows |      hot      cold");
    for n_flows in FLOWS {
        let mut bench = Bench::new(n_flows)?;
        bench.fill()?;
        bench.set_pressure(true);
        bench.report("parse, table and slot", STEERED_LEN, Reason::PeerPressure)?;
        bench.set_pressure(false);
        bench.report("with the copy of 100 B", COPIED_LEN, Reason::Captured)?;
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
            self.run(&packet(flow, 64), 1)?;
            if flow % 1000 == 0 {
                self.drain();
            }
        }
        self.drain();
        Ok(())
    }

    fn set_pressure(&self, pressed: bool) {
        self.kernel.pressure.switch(PEER)(pressed);
    }

    fn report(&mut self, what: &str, len: usize, expected: Reason) -> Result<()> {
        let before = self.counted(expected)?;
        let hot = self.hot(len)?;
        let cold = self.cold(len)?;
        let n_runs = u64::from(HOT_FLOWS) * u64::from(REPEAT) + u64::from(COLD_FLOWS);
        let counted = self.counted(expected)? - before;
        ensure!(
            counted == n_runs,
            "{counted} of {n_runs} packets were {}",
            expected.name()
        );
        println!("{what:<24} {:>11} | {hot:>8.0} {cold:>9.0}", self.n_flows);
        Ok(())
    }

    fn hot(&mut self, len: usize) -> Result<f64> {
        let mut total = Duration::ZERO;
        for flow in self.sample(HOT_FLOWS) {
            total += self.run(&packet(flow, len), REPEAT)?;
            self.drain();
        }
        Ok(total.as_nanos() as f64 / f64::from(HOT_FLOWS))
    }

    fn cold(&mut self, len: usize) -> Result<f64> {
        let not_ip = vec![0; len];
        let (mut total, mut empty) = (Duration::ZERO, Duration::ZERO);
        for (i, flow) in self.sample(COLD_FLOWS).enumerate() {
            total += self.run(&packet(flow, len), 1)?;
            empty += self.run(&not_ip, 1)?;
            if i % 1000 == 0 {
                self.drain();
            }
        }
        self.drain();
        Ok((total.as_nanos() as f64 - empty.as_nanos() as f64) / f64::from(COLD_FLOWS))
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

/// A UDP packet of `len` bytes: one flow per number.
fn packet(flow: u32, len: usize) -> Vec<u8> {
    let [_, a, b, c] = flow.to_be_bytes();
    let builder = PacketBuilder::ipv4([10, 9, a, b], [10, 1, 0, 2], 64).udp(1000 + u16::from(c), 53);
    let mut packet = Vec::with_capacity(len);
    builder
        .write(&mut packet, &vec![0; len - 28])
        .expect("a vector takes every byte");
    packet
}

fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("cannot make namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("cannot keep mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpffs")
}
