//! The connection table: which worker and peer a flow has.
#![expect(unsafe_code, reason = "writes a map entry in place")]

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use router_common::flow_entry::FlowEntry;
use router_common::flow_hash::flow_hash;
use router_common::flow_key::FlowKey;
use router_common::packet::Parsed;
use router_common::peer::NO_PEER;
use router_common::slots::slot;

use crate::fragments;
use crate::maps::{CONNECTIONS, PEERS, SETTINGS, SLOTS};

/// What a packet needs of its flow's entry.
#[derive(Clone, Copy)]
pub(crate) struct FlowView {
    pub(crate) worker: u32,
    pub(crate) peer: u32,
    pub(crate) flow_hash: u32,
    pub(crate) by_device: bool,
}

/// Finds the entry of the flow that the packet is of, or makes one, and counts the packet in it. The key of a fragment
/// becomes that of its whole packet.
#[inline(always)]
pub(crate) fn entry(parsed: &mut Parsed, len: u32) -> Option<FlowView> {
    // SAFETY: the helper takes nothing and gives a number.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if parsed.fragment {
        fragments::complete(parsed, now_ns);
    }
    let key = &parsed.key;
    let settings = SETTINGS.get(0)?;
    // Read before any peer is looked up: user space raises it once the table is as it is to be.
    let peers_version = settings.peers_version;
    if let Some(view) = touch(key, len, now_ns, settings.flow_ttl_ns, peers_version) {
        return Some(view);
    }
    let hash = flow_hash(&settings.hash_key, key);
    let fresh = FlowEntry {
        first_seen_ns: now_ns,
        last_seen_ns: now_ns,
        packets: 1,
        bytes: u64::from(len),
        worker: *SLOTS.get(slot(hash))?,
        peer: peer_of(key),
        flow_hash: hash,
        peers_version,
        by_device: 0,
        padding: 0,
    };
    if CONNECTIONS.insert(key, fresh, BPF_NOEXIST.into()).is_err() {
        // Another CPU was first: its entry counts. Only a table without room leaves us without one.
        if let Some(view) = touch(key, len, now_ns, u64::MAX, peers_version) {
            return Some(view);
        }
    }
    Some(FlowView {
        worker: fresh.worker,
        peer: fresh.peer,
        flow_hash: hash,
        by_device: false,
    })
}

/// Lets every later packet of the flow go by way of the device, so that none overtakes those that have to.
#[inline(always)]
pub(crate) fn leave_to_device(key: &FlowKey) {
    if let Some(conn) = CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: as in `touch`.
        unsafe { (*conn).by_device = 1 };
    }
}

#[inline(always)]
fn peer_of(key: &FlowKey) -> u32 {
    PEERS
        .get(&Key::new(128, key.destination))
        .copied()
        .unwrap_or(NO_PEER)
}

#[inline(always)]
fn touch(key: &FlowKey, len: u32, now_ns: u64, ttl_ns: u64, peers_version: u32) -> Option<FlowView> {
    let conn = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: entries of an LRU map stay readable and writable for the run of the program; two CPUs may count at
    // once and lose a count, never more.
    let conn = unsafe { &mut *conn };
    if conn.expired(now_ns, ttl_ns) {
        let _ = CONNECTIONS.remove(key);
        return None;
    }
    if conn.peers_version != peers_version {
        // In place, and not by a new entry: the flow keeps its worker.
        conn.peer = peer_of(key);
        conn.peers_version = peers_version;
    }
    conn.last_seen_ns = now_ns;
    conn.packets += 1;
    conn.bytes += u64::from(len);
    Some(FlowView {
        worker: conn.worker,
        peer: conn.peer,
        flow_hash: conn.flow_hash,
        by_device: conn.by_device != 0,
    })
}
