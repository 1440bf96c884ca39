//! Memory shared with the kernel.
#![expect(unsafe_code, reason = "maps memory that the kernel shares")]

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// A shared mapping, unmapped on drop. It belongs to no thread: what is written in it is written atomically.
#[derive(Debug)]
pub(super) struct Mapped(MmapRaw);

impl Mapped {
    /// Maps `len` bytes of `fd` from `offset`.
    ///
    /// # Errors
    /// `len` is 0, or the kernel refuses.
    pub(super) fn new(fd: impl AsFd, offset: usize, len: usize, writable: bool) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut options = MmapOptions::new();
        options.offset(offset as u64).len(len);
        let fd = fd.as_fd().as_raw_fd();
        let mapped = match writable {
            true => options.map_raw(fd),
            false => options.map_raw_read_only(fd),
        };
        mapped.map(Self)
    }

    /// Allocates `len` bytes of zeroes.
    ///
    /// # Errors
    /// `len` is 0, or there is no memory.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        MmapMut::map_anon(len).map(|mapped| Self(mapped.into()))
    }

    /// Returns where the mapping starts.
    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Returns the length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the aligned 64-bit word at `offset`; `None` outside.
    pub(super) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let inside = offset.checked_add(8)? <= self.len() && offset.is_multiple_of(8);
        // SAFETY: inside the mapping, which starts at a page, lives as long as `self` and is written atomically.
        inside.then(|| unsafe { AtomicU64::from_ptr(self.start().add(offset).cast()) })
    }

    /// Returns the aligned 32-bit word at `offset`; `None` outside.
    pub(super) fn half_word(&self, offset: usize) -> Option<&AtomicU32> {
        let inside = offset.checked_add(4)? <= self.len() && offset.is_multiple_of(4);
        // SAFETY: inside the mapping, which starts at a page, lives as long as `self` and is written atomically.
        inside.then(|| unsafe { AtomicU32::from_ptr(self.start().add(offset).cast()) })
    }

    /// Returns `len` bytes at `offset`; `None` outside.
    ///
    /// # Safety
    /// Nobody writes to them while the slice lives.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let inside = offset.checked_add(len)? <= self.len();
        // SAFETY: inside the mapping; the caller keeps writers away.
        inside.then(|| unsafe { std::slice::from_raw_parts(self.start().add(offset), len) })
    }
}
