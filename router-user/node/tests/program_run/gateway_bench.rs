//! The gateway programs beside their bench, run on frames.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use etherparse::Ipv4Header;

use crate::bench::{Bench, Outcome, Plan};
use crate::packet_socket::PacketSocket;
use router_common::names;
use router_common::packet::ethernet;
use router_common::record::RecordHeader;
use stream_router_node::kernel::{AttachedGateway, GatewayHook, GatewayInterface};

/// Verdicts of XDP, as in `linux/bpf.h`; a run at the other hook gives the same.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
/// Verdicts of TC, as in `linux/pkt_cls.h`: the packet is dropped, or the next program has its turn.
const TC_SHOT: u32 = 2;
const TC_UNSPEC: u32 = u32::MAX;

pub(crate) const HOOKS: [GatewayHook; 2] = [GatewayHook::Tc, GatewayHook::Xdp];

/// Hardware address of the gateway.
pub(crate) const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A cable in the bench's namespaces: an end for frames to be sent at, and the other, which is a gateway's.
pub(crate) struct Cable {
    pub(crate) sender: PacketSocket,
    pub(crate) interface: GatewayInterface,
    pub(crate) attached: AttachedGateway,
}

impl Cable {
    pub(crate) fn lay(bench: &Bench, hook: GatewayHook) -> Result<Self> {
        run_ip(&[
            "link", "add", "far0", "index", "100", "type", "veth", "peer", "name", "lan0", "index", "101",
        ])?;
        run_ip(&["link", "set", "lan0", "address", "02:00:00:00:00:01"])?;
        for end in ["far0", "lan0"] {
            run_ip(&["link", "set", end, "up"])?;
        }
        let interface = GatewayInterface {
            name: "lan0".to_owned(),
            index: 101,
            address: HOST,
        };
        let attached = bench.kernel.attach_gateway(&interface, hook)?;
        Ok(Self {
            sender: PacketSocket::open(100)?,
            interface,
            attached,
        })
    }
}
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Where a run's frames come from unless told otherwise.
const LOOPBACK: u32 = 1;
/// Shortest frame without its checksum (IEEE 802.3).
pub(crate) const SHORTEST_FRAME: usize = 60;

/// The programs, and the loopback interface as a gateway.
pub(crate) struct GatewayBench {
    pub(crate) bench: Bench,
    program: Program,
}

enum Program {
    Tc(SchedClassifier),
    Xdp(Xdp),
}

impl GatewayBench {
    pub(crate) fn new(hook: GatewayHook) -> Result<Self> {
        Self::with(hook, Plan::default())
    }

    pub(crate) fn with(hook: GatewayHook, plan: Plan) -> Result<Self> {
        let bench = Bench::with(plan)?;
        bench.kernel.programs.load_gateway(hook)?;
        bench.kernel.gateways.add(LOOPBACK, HOST)?;
        let pins = bench.kernel.programs.pin_directory().context("no pins")?;
        let program = match hook {
            GatewayHook::Tc => Program::Tc(SchedClassifier::from_pin(pins.join(names::PROGRAM_GATEWAY_TC))?),
            GatewayHook::Xdp => Program::Xdp(Xdp::from_pin(
                pins.join(names::PROGRAM_GATEWAY),
                XdpAttachType::Interface,
            )?),
        };
        Ok(Self { bench, program })
    }

    /// Runs the program on a frame and drains all rings; a frame that passes must be as it was.
    pub(crate) fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = self.bench.kernel.counters.read()?;
        let verdict = self.verdict(frame)?;
        Ok(Outcome {
            verdict,
            counted: self.bench.counted_since(&before)?,
            records: self.bench.drain(),
        })
    }

    /// Runs the program on a frame and returns its verdict alone; the records stay in their rings.
    pub(crate) fn verdict(&self, frame: &[u8]) -> Result<u32> {
        let mut left = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut left),
            ..TestRunOptions::new()
        };
        let verdict = match &self.program {
            Program::Xdp(program) => program.test_run(options)?.return_value,
            Program::Tc(program) => match program.test_run(options)?.return_value {
                TC_SHOT => DROP,
                TC_UNSPEC => PASS,
                other => bail!("verdict {other}"),
            },
        };
        ensure!(
            verdict != PASS || left == frame,
            "a frame that passes was changed to {left:x?}"
        );
        Ok(verdict)
    }

    /// Runs the program for XDP on a frame; returns the verdict and what the frame has become.
    pub(crate) fn run_and_keep(&self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut left = vec![0; frame.len() + RecordHeader::LEN];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut left),
            ..TestRunOptions::new()
        };
        let Program::Xdp(program) = &self.program else {
            bail!("no socket gets a frame there");
        };
        let run = program.test_run(options)?;
        left.truncate(run.data_size_out as usize);
        Ok((run.return_value, left))
    }
}

/// A frame to the gateway with tags of the given types.
pub(crate) fn tagged(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let ether_type = match packet.first().map(|first| first >> 4) {
        Some(6) => ethernet::IPV6,
        _ => ethernet::IPV4,
    };
    frame(HOST, tags, ether_type, packet)
}

pub(crate) fn frame(destination: [u8; 6], tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [destination, SENDER].concat();
    for (id, tag) in (100_u16..).zip(tags) {
        frame.extend(tag.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame as a sender fills it up.
pub(crate) fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(SHORTEST_FRAME), 0xaa);
    frame
}

/// The packet with these hops left, and in IPv4 the right header checksum.
pub(crate) fn with_hops(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = hops;
        return packet;
    }
    packet[8] = hops;
    let (header, _) = Ipv4Header::from_slice(&packet).expect("an IPv4 header");
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    packet
}

pub(crate) fn run_ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).status().context("cannot run ip")?;
    ensure!(done.success(), "ip {args:?}: {done}");
    Ok(())
}
