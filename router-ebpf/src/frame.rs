//! The frame in the kernel, before the kernel has made a socket buffer of it.
#![expect(unsafe_code, reason = "reads and writes the driver's buffer")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use router_common::packet::PacketReader;
use router_common::record::RecordHeader;

use crate::packet::{self, Packet};

/// What a driver received; perhaps in several buffers.
pub(crate) struct Frame {
    raw: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            raw: ctx.as_ptr().cast(),
        }
    }

    /// Length in bytes, of all buffers together.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: the verifier knows the context pointer.
        unsafe { bpf_xdp_get_buff_len(self.raw) as u32 }
    }

    /// Index of the interface that received it.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the verifier knows the context pointer and checks the access.
        unsafe { (*self.raw).ingress_ifindex }
    }

    /// The receive queue that the frame came by.
    #[inline(always)]
    pub(crate) fn queue(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw).rx_queue_index }
    }

    /// Says whether all of it is in one buffer.
    #[inline(always)]
    pub(crate) fn is_linear(&self) -> bool {
        // SAFETY: as above.
        let linear = unsafe { (*self.raw).data_end - (*self.raw).data };
        linear == self.len()
    }

    /// Puts `record` in place of the first `len` bytes.
    #[inline(always)]
    pub(crate) fn replace_head(&self, len: u32, record: &RecordHeader) -> bool {
        let grow = len as i32 - RecordHeader::LEN as i32;
        // SAFETY: the helper moves the start of the frame into the driver's headroom, or refuses.
        let moved = unsafe { bpf_xdp_adjust_head(self.raw, grow) } == 0;
        // SAFETY: the record has no padding and is as long as the array.
        moved
            && self.store(0, unsafe {
                core::mem::transmute::<RecordHeader, [u8; RecordHeader::LEN]>(*record)
            })
    }

    /// Overwrites bytes at `offset`.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&self, offset: u32, mut bytes: [u8; N]) -> bool {
        // SAFETY: the array has N bytes; the helper checks the frame's end.
        unsafe { bpf_xdp_store_bytes(self.raw, offset, bytes.as_mut_ptr().cast(), N as u32) == 0 }
    }
}

impl Packet for Frame {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_xdp_load_bytes(self.raw, offset, to.cast(), len) == 0 }
    }
}

impl PacketReader for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        packet::load(self, offset)
    }
}
