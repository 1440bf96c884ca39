//! Every way out of an eBPF program, by name; each is a per-CPU counter.

/// Says what a counter's growth means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonKind {
    /// Something happened; nothing was lost.
    Event,
    /// A packet went nowhere.
    Drop,
}

/// Makes an enum of counters from the one table of their names, kinds and meanings.
///
/// The variants are numbered from 0 in the order of the table, which is the order of the counters in a map or an array.
#[macro_export]
macro_rules! counters {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $Counter:ident {
            $($variant:ident => ($name:literal, $kind:ident, $meaning:literal);)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        $visibility enum $Counter {
            $(#[doc = $meaning] $variant,)+
        }

        impl $Counter {
            /// Every counter, in order.
            $visibility const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// Returns the name by which commands and metrics show the counter.
            $visibility const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns whether a packet was lost each time that the counter grew.
            $visibility const fn kind(self) -> $crate::reason::ReasonKind {
                match self {
                    $(Self::$variant => $crate::reason::ReasonKind::$kind,)+
                }
            }

            /// Returns what the counter counts, as the documents say it too.
            $visibility const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }
        }
    };
}

counters! {
    /// Why a packet left a program where it did.
    pub enum Reason {
        Captured => ("captured", Event, "packets given to a worker; a super-packet is one");
        NotIp => ("not_ip", Event, "packets left to the device or the gateway's host: neither IPv4 nor IPv6, or behind a third VLAN tag");
        Multicast => ("multicast", Event, "packets left to the device or the gateway's host: multicast or broadcast");
        Truncated => ("truncated", Drop, "packets refused: a header is cut short");
        BadHeaderLength => ("bad_header_length", Drop, "packets refused: a header length is impossible");
        BadTotalLength => ("bad_total_length", Drop, "packets refused: the length in the IP header is not the packet's");
        TooManyHeaders => ("too_many_headers", Drop, "packets refused: more extension headers than the parser follows");
        TooLarge => ("too_large", Event, "packets left to the device, which cuts them: longer than 65,535 bytes");
        LeftToDevice => ("left_to_device", Event, "packets left to the device: the kernel has to finish their checksums or segments, or earlier ones of their flow");
        RingFull => ("ring_full", Drop, "packets refused: the worker is behind; the sending TCP is told and sends again");
        PeerPressure => ("peer_pressure", Drop, "packets refused: the peer's queue is full; the sending TCP is told and sends again");
        NoRing => ("no_ring", Drop, "packets refused: the flow's worker has no ring");
        FragmentAlone => ("fragment_alone", Event, "fragments whose packet's first fragment was not seen, counted beside what became of them; they may overtake others of their flow");
        CopyFailed => ("copy_failed", Drop, "packets refused: the kernel did not copy them");
        PassedMalformed => ("passed_malformed", Event, "packets left to the gateway's host: a header or length is wrong");
        PassedNotOurs => ("passed_not_ours", Event, "packets left to the gateway's host: for itself, another machine, or a network that no peer has");
        PassedSource => ("passed_source", Event, "packets left to the gateway's host: the source address is a peer's, or none that can be forwarded");
        PassedOptions => ("passed_options", Event, "packets left to the gateway's host: IPv4 options, or IPv6 options for every hop");
        PassedTtl => ("passed_ttl", Event, "packets left to the gateway's host: their last hop; it tells the sender if it forwards");
        PassedTooBig => ("passed_too_big", Event, "packets left to the gateway's host: longer than `device.mtu`; it tells the sender if it forwards");
    }
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}
