//! The system calls of AF_XDP sockets (kernel: `net/xdp/xsk.c`).
#![expect(unsafe_code, reason = "calls that no crate we use has safe wrappers for")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

/// What a socket counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketDrops {
    /// Frames dropped because the worker is behind.
    pub ring_full: u64,
    /// Frames dropped because no memory was free for them.
    pub no_memory: u64,
    /// Frames dropped for other reasons, such as their length.
    pub other: u64,
}

impl SocketDrops {
    /// Adds what another socket counted.
    pub fn add(&mut self, other: Self) {
        self.ring_full += other.ring_full;
        self.no_memory += other.no_memory;
        self.other += other.other;
    }
}

/// Opens a socket.
pub(super) fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, kind, 0) })?;
    // SAFETY: a descriptor that the kernel has just given us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `memory` of `len` bytes, cut into chunks, the socket's.
///
/// # Safety
/// The memory stays mapped, and nobody but the kernel writes to a chunk that is in its hands, while a socket uses it.
pub(super) unsafe fn register_memory(
    socket: BorrowedFd<'_>,
    memory: *mut u8,
    len: usize,
    chunk_len: u32,
) -> io::Result<()> {
    let region = libc::xdp_umem_reg {
        addr: memory as u64,
        len: len as u64,
        chunk_size: chunk_len,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(socket, libc::XDP_UMEM_REG, &region)
}

/// Makes one of the socket's rings, with `n_entries`, a power of two.
pub(super) fn make_ring(socket: BorrowedFd<'_>, ring: libc::c_int, n_entries: u32) -> io::Result<()> {
    set_option(socket, ring, &n_entries)
}

/// Returns where the fields of the mapped rings are.
pub(super) fn ring_offsets(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    get_option(socket, libc::XDP_MMAP_OFFSETS)
}

/// Binds to a receive queue; `shared` is a socket whose memory is used, and then its flags hold.
pub(super) fn bind(
    socket: BorrowedFd<'_>,
    interface: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: if shared.is_some() {
            libc::XDP_SHARED_UMEM
        } else {
            flags
        },
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |shared| shared.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the address and keeps none of them.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}

/// Returns what the socket has dropped.
pub(super) fn drops(socket: BorrowedFd<'_>) -> io::Result<SocketDrops> {
    let counted: libc::xdp_statistics = get_option(socket, libc::XDP_STATISTICS)?;
    Ok(SocketDrops {
        ring_full: counted.rx_ring_full,
        no_memory: counted.rx_fill_ring_empty_descs,
        other: counted.rx_dropped + counted.rx_invalid_descs,
    })
}

fn set_option<T>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the value.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    check(set)?;
    Ok(())
}

/// Reads an option; `T` is one of the kernel's structures of integers.
fn get_option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: integers may be 0.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `len` bytes to the value.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    check(got)?;
    Ok(value)
}

fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}
