//! Delivery into a worker's ring.
#![expect(unsafe_code, reason = "writes ring records through raw pointers")]

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xchg};
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, bpf_dynptr};
use aya_ebpf::helpers::generated::{
    bpf_dynptr_data, bpf_ringbuf_discard, bpf_ringbuf_discard_dynptr, bpf_ringbuf_reserve,
    bpf_ringbuf_reserve_dynptr, bpf_ringbuf_submit, bpf_ringbuf_submit_dynptr,
};
use router_common::frame::MAX_PACKET_LEN;
use router_common::reason::Reason;
use router_common::record::RecordHeader;

use crate::maps::{RINGS, WAKE};
use crate::packet::Packet;

const HEADER: u32 = RecordHeader::LEN as u32;
/// Packets shorter than this have a record of fixed size: it costs less than an exact one.
const SMALL: u32 = 64;
const _: () = assert!(SMALL.is_power_of_two());

/// Copies the packet behind `record` into the ring of `worker`.
#[inline(always)]
pub(crate) fn deliver(packet: &impl Packet, worker: u32, record: &RecordHeader, len: u32) -> Reason {
    let Some(ring) = RINGS.get(worker) else {
        return Reason::NoRing;
    };
    let ring = core::ptr::from_ref(ring).cast_mut().cast::<c_void>();
    if len < SMALL {
        deliver_small(packet, ring, worker, record, len)
    } else {
        deliver_exact(packet, ring, worker, record, len)
    }
}

#[inline(always)]
fn deliver_small(
    packet: &impl Packet,
    ring: *mut c_void,
    worker: u32,
    record: &RecordHeader,
    len: u32,
) -> Reason {
    // SAFETY: `ring` is a ring buffer of the map; the record is submitted or discarded on every path below.
    let room = unsafe { bpf_ringbuf_reserve(ring, u64::from(HEADER + SMALL), 0) }.cast::<u8>();
    if room.is_null() {
        return Reason::RingFull;
    }
    // SAFETY: the record begins with room for the header.
    unsafe { room.cast::<RecordHeader>().write_unaligned(*record) };
    // SAFETY: behind the header there is room for SMALL bytes.
    let behind = unsafe { room.add(HEADER as usize) };
    // SAFETY: `bounded` gives no more than SMALL.
    if !unsafe { packet.copy(0, behind, bounded(len)) } {
        // SAFETY: the record was reserved above and not yet given back.
        unsafe { bpf_ringbuf_discard(room.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
        return Reason::CopyFailed;
    }
    // SAFETY: the record was reserved above and not yet given back.
    unsafe { bpf_ringbuf_submit(room.cast(), wake_flags(worker)) };
    Reason::Captured
}

/// Returns the length unchanged, 1 to [`SMALL`], in a form that the verifier can follow: the compiler knows the bounds
/// from checks made long before, on copies that the verifier has lost sight of, and would drop a plain check here.
#[inline(always)]
fn bounded(len: u32) -> u32 {
    // SAFETY: reads a local variable.
    let len = unsafe { core::ptr::read_volatile(&len) };
    (len.wrapping_sub(1) & (SMALL - 1)) + 1
}

#[inline(always)]
fn deliver_exact(
    packet: &impl Packet,
    ring: *mut c_void,
    worker: u32,
    record: &RecordHeader,
    len: u32,
) -> Reason {
    // The verifier wants it unset.
    let mut room = MaybeUninit::<bpf_dynptr>::uninit();
    let room = room.as_mut_ptr();
    // SAFETY: `ring` is a ring buffer of the map; the record is submitted or discarded on every path below.
    if unsafe { bpf_ringbuf_reserve_dynptr(ring, HEADER + len, 0, room) } != 0 {
        // The verifier wants it back even so.
        // SAFETY: the call above has set it, to nothing.
        unsafe { bpf_ringbuf_discard_dynptr(room, u64::from(BPF_RB_NO_WAKEUP)) };
        return Reason::RingFull;
    }
    if !fill(packet, room, record, len) {
        // SAFETY: the record was reserved above and not yet given back.
        unsafe { bpf_ringbuf_discard_dynptr(room, u64::from(BPF_RB_NO_WAKEUP)) };
        return Reason::CopyFailed;
    }
    // SAFETY: the record was reserved above and not yet given back.
    unsafe { bpf_ringbuf_submit_dynptr(room, wake_flags(worker)) };
    Reason::Captured
}

/// Writes the header and the packet into a record of `HEADER + len` bytes.
#[inline(always)]
fn fill<P: Packet>(packet: &P, room: *const bpf_dynptr, record: &RecordHeader, len: u32) -> bool {
    // SAFETY: the helper gives HEADER bytes or null.
    let header = unsafe { bpf_dynptr_data(room, 0, HEADER) }.cast::<RecordHeader>();
    if header.is_null() {
        return false;
    }
    // SAFETY: HEADER bytes are writable there.
    unsafe { header.write_unaligned(*record) };
    if len >= 4096 {
        copy_slices::<4096, _>(packet, room, len)
    } else if len >= 512 {
        copy_slices::<512, _>(packet, room, len)
    } else {
        copy_slices::<64, _>(packet, room, len)
    }
}

/// Copies `len >= SLICE` bytes behind the header in slices of constant size, as the verifier wants; the last one overlaps.
#[inline(always)]
fn copy_slices<const SLICE: u32, P: Packet>(packet: &P, room: *const bpf_dynptr, len: u32) -> bool {
    let n_slices = MAX_PACKET_LEN as u32 / SLICE + 1;
    let mut offset = 0;
    let mut i = 0;
    while i < n_slices.min(17) {
        if offset >= len {
            break;
        }
        if offset + SLICE > len {
            offset = len - SLICE;
        }
        // SAFETY: the helper gives SLICE bytes or null.
        let to = unsafe { bpf_dynptr_data(room, HEADER + offset, SLICE) }.cast::<u8>();
        // SAFETY: SLICE bytes are writable at `to`.
        if to.is_null() || !unsafe { packet.copy(offset, to, SLICE) } {
            return false;
        }
        offset += SLICE;
        i += 1;
    }
    true
}

/// Wakes the worker if it sleeps. Partner: `RingConsumer::prepare_sleep`.
#[inline(always)]
fn wake_flags(worker: u32) -> u64 {
    let Some(flag) = WAKE.get_ptr_mut(worker) else {
        return 0;
    };
    // A full barrier: the record's reservation is visible before the flag is read.
    // SAFETY: the map gives the address of one of its entries.
    let sleeping = unsafe { &raw mut (*flag).sleeping };
    // SAFETY: the field is aligned and only ever accessed atomically.
    if unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(sleeping, 0) } != 0 {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
