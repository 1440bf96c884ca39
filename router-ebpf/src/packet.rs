//! The packet in the kernel.
#![expect(unsafe_code, reason = "reads the kernel's socket buffer")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use router_common::packet::{Behind, PacketReader};

/// A packet that can be copied into a record; offsets count from its IP header.
pub(crate) trait Packet: PacketReader {
    /// Copies `len` bytes from `offset` to `to`.
    ///
    /// # Safety
    /// `len` bytes are writable at `to`, and the verifier can see it.
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool;

    /// Payload bytes of a segment of a super-packet, else 0.
    fn gso_size(&self) -> u32;
}

/// Loads `N` bytes by [`Packet::copy`].
#[inline(always)]
pub(crate) fn load<const N: usize>(packet: &impl Packet, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the array has N bytes.
    unsafe { packet.copy(offset, bytes.as_mut_ptr(), N as u32) }.then_some(bytes)
}

impl<P: Packet> Packet for Behind<'_, P> {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.reader.copy(self.base + offset, to, len) }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        self.reader.gso_size()
    }
}

/// A socket buffer whose first byte is the IP header's, as on a TUN device.
pub(crate) struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self {
            raw: ctx.as_ptr().cast(),
        }
    }

    /// Length in bytes, of all segments together.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: the verifier knows the context pointer and checks the access.
        unsafe { (*self.raw).len }
    }
}

impl Packet for Skb {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, to.cast(), len) == 0 }
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.raw).gso_size }
    }
}

impl PacketReader for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load(self, offset)
    }
}
