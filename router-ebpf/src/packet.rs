//! The packet in the kernel.
#![expect(unsafe_code, reason = "reads the kernel's socket buffer")]

use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use router_common::offload::{Checksum, Offloads};
use router_common::packet::{Behind, PacketReader, Parsed};
use router_common::skb_layout::SkbLayout;

use crate::abi::SKB_LAYOUT;

/// Values of `ip_summed` in the kernel that say that a checksum is open.
const CHECKSUM_PARTIAL: u8 = 3;

/// A packet that can be copied into a record; offsets count from its IP header.
pub(crate) trait Packet: PacketReader {
    /// Copies `len` bytes from `offset` to `to`.
    ///
    /// # Safety
    /// `len` bytes are writable at `to`, and the verifier can see it.
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool;
}

/// Returns what the parser fills in, all zeros: its default. They are written in words that the compiler does not know, of
/// which it would make a call, and a call's stack counts with the caller's.
#[inline(always)]
pub(crate) fn unparsed() -> Parsed {
    const WORDS: usize = size_of::<Parsed>() / 8;
    const _: () = assert!(size_of::<Parsed>().is_multiple_of(8) && align_of::<Parsed>() == 8);
    let zero = black_box(0_u64);
    let mut parsed = MaybeUninit::<Parsed>::uninit();
    let mut i = 0;
    while i < WORDS {
        // SAFETY: the value is made of so many words, and aligned as they are.
        unsafe { parsed.as_mut_ptr().cast::<u64>().add(i).write(zero) };
        i += 1;
    }
    // SAFETY: zeros are a value of each field.
    unsafe { parsed.assume_init() }
}

/// Makes the compiler keep `parsed` where it is. By itself it gives each byte of the addresses in it a place of 8 bytes on
/// the stack, and nearly all of the 512 bytes that there are were gone.
#[inline(always)]
pub(crate) fn keep_in_place(parsed: &mut Parsed) {
    black_box(parsed);
}

/// Returns `value`, below 32, as a number of which the verifier knows no more than that, by way of an `unknown` one: else it
/// would follow each value that there may be through all that comes after.
#[inline(always)]
pub(crate) fn blur(value: u32, unknown: u32) -> u32 {
    let unknown = black_box(unknown);
    (black_box(value ^ unknown) ^ unknown) & 31
}

/// Loads `N` bytes by [`Packet::copy`].
#[inline(always)]
pub(crate) fn load<const N: usize>(packet: &impl Packet, offset: u32) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the array has N bytes.
    if !unsafe { packet.copy(offset, bytes.as_mut_ptr().cast(), N as u32) } {
        return None;
    }
    // SAFETY: the helper has written all of them.
    Some(unsafe { bytes.assume_init() })
}

impl<P: Packet> Packet for Behind<'_, P> {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.reader.copy(self.base + offset, to, len) }
    }
}

/// A socket buffer: its first byte is the IP header's on a TUN device, and the Ethernet header's on others.
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

    /// Index of the interface that it is at.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw).ifindex }
    }

    /// Overwrites bytes at `offset`.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&self, offset: u32, bytes: [u8; N]) -> bool {
        // SAFETY: the array has N bytes; the helper checks the packet's end.
        unsafe { bpf_skb_store_bytes(self.raw, offset, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    /// Loads `N` bytes of the kernel's own `struct sk_buff`.
    #[inline(always)]
    fn load_own<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load_kernel(self.raw as u64 + u64::from(offset))
    }

    /// Loads a header's offset, as one from the start of the packet.
    #[inline(always)]
    fn load_header_offset(&self, layout: &SkbLayout, field: u32) -> Option<u32> {
        let start = u16::from_ne_bytes(self.load_own(layout.mac_header)?);
        let header = u16::from_ne_bytes(self.load_own(field)?);
        Some(header.wrapping_sub(start).into())
    }
}

/// Loads `N` bytes of the kernel's memory.
#[inline(always)]
fn load_kernel<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the helper reads no memory that is not there, and the array has N bytes.
    if unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), N as u32, address as *const _) } != 0 {
        return None;
    }
    // SAFETY: the helper has written all of them.
    Some(unsafe { bytes.assume_init() })
}

impl Packet for Skb {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, to.cast(), len) == 0 }
    }
}

impl Offloads for Skb {
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.raw).gso_size }
    }

    #[inline(always)]
    fn checksum(&self) -> Checksum {
        let layout = SKB_LAYOUT.load();
        if layout.ip_summed == 0 {
            return Checksum::Unknown;
        }
        let Some([bits]) = self.load_own::<1>(layout.ip_summed) else {
            return Checksum::Unknown;
        };
        if (bits >> (layout.ip_summed_shift & 7)) & 3 != CHECKSUM_PARTIAL {
            return Checksum::Complete;
        }
        if layout.csum_not_inet != 0 {
            match self.load_own::<1>(layout.csum_not_inet) {
                Some([bits]) if u32::from(bits) & layout.csum_not_inet_mask == 0 => {}
                _ => return Checksum::OpenOther,
            }
        }
        let offset = self.load_own::<2>(layout.csum_start + 2).map(u16::from_ne_bytes);
        match (self.load_header_offset(&layout, layout.csum_start), offset) {
            (Some(start), Some(offset)) => Checksum::Open {
                start,
                offset: offset.into(),
            },
            _ => Checksum::Unknown,
        }
    }

    #[inline(always)]
    fn gso_type(&self) -> Option<u32> {
        let layout = SKB_LAYOUT.load();
        if layout.ip_summed == 0 {
            return None;
        }
        let head = u64::from_ne_bytes(self.load_own(layout.head)?);
        let end = u32::from_ne_bytes(self.load_own(layout.end)?);
        let shared_info = head + u64::from(end);
        Some(u32::from_ne_bytes(load_kernel(
            shared_info + u64::from(layout.gso_type),
        )?))
    }

    #[inline(always)]
    fn inner_network_offset(&self) -> Option<u32> {
        let layout = SKB_LAYOUT.load();
        if layout.ip_summed == 0 {
            return None;
        }
        self.load_header_offset(&layout, layout.inner_network_header)
    }
}

impl PacketReader for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load(self, offset)
    }
}
