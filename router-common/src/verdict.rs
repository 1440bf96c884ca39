//! What becomes of a packet for each reason, by the hook that it is at.
//!
//! Every reason is named, so that a new one does not compile before somebody has decided.

use crate::reason::Reason;

/// What the egress program tells the kernel of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressVerdict {
    /// The packet is taken.
    Stolen,
    /// The packet goes on to the device.
    Ok,
    /// The packet is refused, which a local sender's TCP hears at once; it holds back and loses nothing.
    Shot,
}

/// What the gateway program tells the kernel of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayVerdict {
    /// The frame is done with: a ring has its packet, or nobody gets it. A full ring is a full queue of a router.
    Drop,
    /// The frame goes on to the host.
    Pass,
}

impl EgressVerdict {
    /// Returns the verdict on a packet that leaves the egress program for `reason`.
    #[inline(always)]
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Captured => Self::Stolen,
            Reason::NotIp | Reason::Multicast | Reason::TooLarge | Reason::LeftToDevice => Self::Ok,
            Reason::Truncated
            | Reason::BadHeaderLength
            | Reason::BadTotalLength
            | Reason::TooManyHeaders
            | Reason::RingFull
            | Reason::PeerPressure
            | Reason::NoRing
            | Reason::CopyFailed => Self::Shot,
            // No packet leaves for this reason: it is counted beside another.
            Reason::FragmentAlone => Self::Shot,
            // Of the gateway program alone. Should one ever come here, the packet is refused and counted.
            Reason::PassedMalformed
            | Reason::PassedNotOurs
            | Reason::PassedSource
            | Reason::PassedOptions
            | Reason::PassedTtl
            | Reason::PassedTooBig => Self::Shot,
        }
    }
}

impl GatewayVerdict {
    /// Returns the verdict on a frame that leaves the gateway program for `reason` and was given to no socket.
    #[inline(always)]
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Captured
            | Reason::RingFull
            | Reason::PeerPressure
            | Reason::NoRing
            | Reason::CopyFailed => Self::Drop,
            Reason::NotIp
            | Reason::Multicast
            | Reason::Truncated
            | Reason::BadHeaderLength
            | Reason::BadTotalLength
            | Reason::TooManyHeaders
            | Reason::TooLarge
            | Reason::LeftToDevice
            | Reason::FragmentAlone
            | Reason::PassedMalformed
            | Reason::PassedNotOurs
            | Reason::PassedSource
            | Reason::PassedOptions
            | Reason::PassedTtl
            | Reason::PassedTooBig => Self::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::ReasonKind;

    #[test]
    fn the_device_gets_no_packet_that_counts_as_dropped() {
        for reason in Reason::ALL {
            let dropped = reason.kind() == ReasonKind::Drop;
            assert!(
                !dropped || EgressVerdict::of(reason) == EgressVerdict::Shot,
                "{reason:?}"
            );
        }
    }

    #[test]
    fn what_the_gateway_passes_by_name_reaches_the_host() {
        for reason in Reason::ALL {
            let passed = reason.name().starts_with("passed_");
            assert!(
                !passed || GatewayVerdict::of(reason) == GatewayVerdict::Pass,
                "{reason:?}"
            );
        }
    }
}
