//! The ports of fragmented packets, which all fragments but the first lack.
#![expect(unsafe_code, reason = "reads a map entry in place")]

use aya_ebpf::bindings::BPF_ANY;
use router_common::fragment::{FragmentPorts, make_packet_key};
use router_common::packet::Parsed;
use router_common::reason::Reason;

use crate::counters;
use crate::maps::FRAGMENTS;

/// Makes the flow key of a fragment that of its whole packet: the first fragment leaves its ports in a table, where the
/// others find them. One that does not is counted, and goes as a flow without ports.
#[inline(always)]
pub(crate) fn complete(parsed: &mut Parsed, now_ns: u64) {
    let own = FragmentPorts::of(&parsed.key, now_ns);
    make_packet_key(&mut parsed.key, parsed.fragment_id);
    let packet = &parsed.key;
    if parsed.first_fragment {
        // The table makes room by itself; should it have none for a moment, later fragments are counted below.
        let _ = FRAGMENTS.insert(packet, own, BPF_ANY.into());
        own.complete(&mut parsed.key);
        return;
    }
    // SAFETY: an entry is changed by putting another in its place, never in place.
    match unsafe { FRAGMENTS.get(packet) } {
        Some(ports) if !ports.expired(now_ns) => ports.complete(&mut parsed.key),
        _ => {
            counters::count(Reason::FragmentAlone);
            own.complete(&mut parsed.key);
        }
    }
}
