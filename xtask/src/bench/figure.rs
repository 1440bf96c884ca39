//! The measured figures, one for each row of the table.

use std::collections::BTreeMap;

use clap::ValueEnum;

use Figure::*;

/// A link that the tunnels cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum LinkKind {
    /// A veth pair with its offloads: segments of up to 64 KiB cross it in one piece.
    Offloads,
    /// A veth pair that carries nothing above its MTU.
    Frames,
    /// A veth pair without offloads, with a delay line in the middle.
    Far,
    /// A veth pair without offloads at 100 Mbit/s, with a buffer of a second.
    Slow100,
    /// The same at 10 Mbit/s.
    Slow10,
    /// The same at 1 Mbit/s.
    Slow1,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Figure {
    Tcp,
    TcpReverse,
    Tcp4,
    Tcp4Reverse,
    TcpBoth,
    CpuPerGib,
    Vxlan,
    SmallRate,
    SmallLoss,
    SmallClean,
    SmallOverload,
    SmallOffered,
    CpuPerPacket,
    LargeRate,
    LargeLoss,
    LargeClean,
    BurstLost,
    Upload,
    PingIdle50,
    PingIdle99,
    CpuPerPing,
    PingLoad50,
    PingLoad99,
    Resident,
    TcpLoss1,
    TcpLoss5,
    TcpLoss20,
    Silence,
}

/// Values of one repeat, or of all repeats, over one link.
pub(super) type Samples = BTreeMap<(LinkKind, Figure), Vec<f64>>;

impl LinkKind {
    /// Returns the name of the link in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Offloads => "offloads",
            Self::Frames => "frames",
            Self::Far => "far",
            Self::Slow100 => "slow100",
            Self::Slow10 => "slow10",
            Self::Slow1 => "slow1",
        }
    }

    /// Returns a short title for where there is little room.
    pub(super) fn short_title(self) -> &'static str {
        match self {
            Self::Offloads => "veth with offloads",
            Self::Frames => "frames of 1500 bytes",
            Self::Far => "frames of 1500 bytes, round trip 20 ms",
            Self::Slow100 => "100 Mbit/s",
            Self::Slow10 => "10 Mbit/s",
            Self::Slow1 => "1 Mbit/s",
        }
    }

    /// Returns the heading of the link's table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Offloads => "A veth with its offloads, where segments of 64 KiB cross in one piece",
            Self::Frames => "A link that carries nothing above 1500 bytes: the veth without offloads",
            Self::Far => "The link without offloads and a round trip of 20 ms",
            Self::Slow100 => "The link without offloads at 100 Mbit/s, behind a buffer of a second",
            Self::Slow10 => "The link without offloads at 10 Mbit/s, behind a buffer of a second",
            Self::Slow1 => "The link without offloads at 1 Mbit/s, behind a buffer of a second",
        }
    }

    /// Returns the rate of a slow link in bytes per second.
    pub(super) fn bytes_per_second(self) -> Option<u32> {
        let mbits = match self {
            Self::Slow100 => 100,
            Self::Slow10 => 10,
            Self::Slow1 => 1,
            Self::Offloads | Self::Frames | Self::Far => return None,
        };
        Some(mbits * 1_000_000 / 8)
    }
}

impl Figure {
    /// Returns the title of the row.
    pub(super) fn title(self) -> &'static str {
        self.title_and_unit().0
    }

    /// Returns the unit of the figure's values.
    pub(super) fn unit(self) -> &'static str {
        self.title_and_unit().1
    }

    fn title_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Tcp => ("TCP, 1 flow", "Gbit/s"),
            TcpReverse => ("TCP, 1 flow, reverse", "Gbit/s"),
            Tcp4 => ("TCP, 4 flows", "Gbit/s"),
            Tcp4Reverse => ("TCP, 4 flows, reverse", "Gbit/s"),
            TcpBoth => ("TCP, both directions at once, sum", "Gbit/s"),
            CpuPerGib => ("CPU of the whole machine, 1 TCP flow", "s/GiB"),
            Vxlan => ("TCP in VXLAN, 1 flow", "Gbit/s"),
            SmallRate => ("UDP 64 B, best received rate", "kpps"),
            SmallLoss => ("UDP 64 B, loss at that rate", "%"),
            SmallClean => ("UDP 64 B, best rate with at most 1 % loss", "kpps"),
            SmallOverload => ("UDP 64 B, received when 3 times as much is offered", "kpps"),
            SmallOffered => ("UDP 64 B, offered then, times the best rate", "×"),
            CpuPerPacket => ("CPU of the whole machine then, for each one received", "µs"),
            LargeRate => ("UDP 1200 B, best received rate", "Gbit/s"),
            LargeLoss => ("UDP 1200 B, loss at that rate", "%"),
            LargeClean => ("UDP 1200 B, best rate with at most 1 % loss", "Gbit/s"),
            BurstLost => ("UDP 1200 B, lost of 1000 sent at once", "%"),
            Upload => ("TCP, 1 flow", "Mbit/s"),
            PingIdle50 => ("ping, idle, p50", "ms"),
            PingIdle99 => ("ping, idle, p99", "ms"),
            CpuPerPing => ("CPU of the whole machine for each ping", "µs"),
            PingLoad50 => ("ping beside 1 TCP flow, p50", "ms"),
            PingLoad99 => ("ping beside 1 TCP flow, p99", "ms"),
            Resident => ("resident memory after load, the larger node", "MiB"),
            TcpLoss1 => ("TCP, 1 flow, 0.1 % random loss", "Gbit/s"),
            TcpLoss5 => ("TCP, 1 flow, 0.5 % random loss", "Gbit/s"),
            TcpLoss20 => ("TCP, 1 flow, 2 % random loss", "Gbit/s"),
            Silence => ("longest silence when the sender's address is replaced", "s"),
        }
    }

    /// Returns whether a smaller value is a better one.
    pub(super) fn less_is_better(self) -> bool {
        matches!(self.unit(), "s/GiB" | "%" | "µs" | "ms" | "s" | "MiB")
    }
}
