//! What is answered, and what must not be (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)).

/// Why a destination cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody has the network: ICMP type 3 code 0, ICMPv6 type 1 code 0.
    NoRoute,
    /// Its peer is not connected: ICMP type 3 code 1, ICMPv6 type 1 code 3.
    Host,
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// It is no IP packet, or cut off within its headers.
    Malformed,
    /// It is itself an ICMP error or redirect; answering could go on for ever.
    IcmpError,
    /// It is a fragment other than the first, and has no ports to find the sender by.
    LaterFragment,
    /// Its source is not one host.
    Source,
    /// Its destination is not one host.
    Destination,
}
