//! Every way out of an eBPF program, by name; each is a per-CPU counter.

/// Why a packet left the program where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Given to a worker.
    Captured = 0,
    /// Left alone: neither IPv4 nor IPv6.
    NotIp,
    /// Left alone: a multicast or broadcast destination that no peer has.
    Multicast,
    /// Refused: a header is cut short.
    Truncated,
    /// Refused: a header length is impossible.
    BadHeaderLength,
    /// Refused: the length in the IP header is not the packet's.
    BadTotalLength,
    /// Refused: more extension headers than the parser follows.
    TooManyHeaders,
    /// Left to the device: longer than a record may be.
    TooLarge,
    /// Refused: the worker's ring is full; the sender is told.
    RingFull,
    /// Refused: the peer's queue is full; the sender is told.
    PeerPressure,
    /// Refused: the worker of the flow has no ring.
    NoRing,
    /// Refused: the packet's bytes could not be copied.
    CopyFailed,
    /// Left to the gateway's host: a header is cut short, impossible, or says another length than the frame holds.
    PassedMalformed,
    /// Left to the gateway's host: for another hardware address, or for a destination that no peer has.
    PassedNotOurs,
    /// Left to the gateway's host: the source is a peer's, or no host's at all.
    PassedSource,
    /// Left to the gateway's host: IPv4 options, or IPv6 options for every hop.
    PassedOptions,
    /// Left to the gateway's host: no hops left; it tells the sender.
    PassedTtl,
    /// Left to the gateway's host: longer than the device's MTU; it tells the sender or cuts the packet.
    PassedTooBig,
}

impl Reason {
    /// How many there are.
    pub const COUNT: u32 = 18;

    /// Every reason, in the order of its counters.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Captured,
        Self::NotIp,
        Self::Multicast,
        Self::Truncated,
        Self::BadHeaderLength,
        Self::BadTotalLength,
        Self::TooManyHeaders,
        Self::TooLarge,
        Self::RingFull,
        Self::PeerPressure,
        Self::NoRing,
        Self::CopyFailed,
        Self::PassedMalformed,
        Self::PassedNotOurs,
        Self::PassedSource,
        Self::PassedOptions,
        Self::PassedTtl,
        Self::PassedTooBig,
    ];

    /// Name in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::NotIp => "not_ip",
            Self::Multicast => "multicast",
            Self::Truncated => "truncated",
            Self::BadHeaderLength => "bad_header_length",
            Self::BadTotalLength => "bad_total_length",
            Self::TooManyHeaders => "too_many_headers",
            Self::TooLarge => "too_large",
            Self::RingFull => "ring_full",
            Self::PeerPressure => "peer_pressure",
            Self::NoRing => "no_ring",
            Self::CopyFailed => "copy_failed",
            Self::PassedMalformed => "passed_malformed",
            Self::PassedNotOurs => "passed_not_ours",
            Self::PassedSource => "passed_source",
            Self::PassedOptions => "passed_options",
            Self::PassedTtl => "passed_ttl",
            Self::PassedTooBig => "passed_too_big",
        }
    }
}
