//! Memory shared with the kernel.
#![expect(unsafe_code, reason = "maps memory that the kernel shares")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use nix::libc::off_t;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A shared mapping, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapped {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the memory belongs to no thread; what is written in it is written atomically.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps `len` bytes of `fd` from `offset`.
    pub(super) fn new(fd: impl AsFd, offset: usize, len: usize, writable: bool) -> io::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = off_t::try_from(offset).map_err(|_too_far| io::ErrorKind::InvalidInput)?;
        let write = if writable {
            ProtFlags::PROT_WRITE
        } else {
            ProtFlags::empty()
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ | write,
                MapFlags::MAP_SHARED,
                fd,
                offset,
            )?
        };
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Allocates `len` bytes of zeroes.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as in `new`.
        let start = unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_SHARED)? };
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Where it starts.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// An aligned 64-bit word at `offset`; `None` outside.
    pub(super) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let inside = offset.checked_add(8)? <= self.len.get() && offset.is_multiple_of(8);
        // SAFETY: inside the mapping, which starts at a page, lives as long as `self` and is written atomically.
        inside.then(|| unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    /// An aligned 32-bit word at `offset`; `None` outside.
    pub(super) fn half_word(&self, offset: usize) -> Option<&AtomicU32> {
        let inside = offset.checked_add(4)? <= self.len.get() && offset.is_multiple_of(4);
        // SAFETY: as in `word`.
        inside.then(|| unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    /// `len` bytes at `offset`; `None` outside.
    ///
    /// # Safety
    /// Nobody writes to them while the slice lives.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let inside = offset.checked_add(len)? <= self.len.get();
        // SAFETY: inside the mapping; the caller keeps writers away.
        inside.then(|| unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; references into it cannot outlive `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.len.get()) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped");
    }
}
