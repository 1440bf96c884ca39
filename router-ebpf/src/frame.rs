//! The frame in the kernel, before the kernel has made a socket buffer of it.
#![expect(unsafe_code, reason = "reads and writes the driver's buffer")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use router_common::packet::PacketReader;

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

    /// Drivers deliver no super-packets here, and generic mode's are longer than any device's MTU.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }
}

impl PacketReader for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        packet::load(self, offset)
    }
}
