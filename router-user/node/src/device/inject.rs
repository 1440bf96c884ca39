//! Writes packets into the host through the TUN device.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use thiserror::Error;

use router_common::frame::{MIN_PACKET_LEN, VnetHeader};

/// Why a packet was not injected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InjectError {
    /// The packet is shorter than an offload header with an IPv4 header.
    #[error("{len} bytes are less than an offload header with a packet")]
    TooShort {
        /// Length in bytes.
        len: usize,
    },
    /// The kernel refuses the offload header, or header and packet contradict each other.
    #[error("the kernel refuses the offload header or the packet")]
    Invalid,
    /// The kernel has no memory for the packet at the moment.
    #[error("the kernel has no memory for the packet")]
    NoMemory,
    /// The device is administratively down.
    #[error("the device is down")]
    Down,
    /// The device was removed.
    #[error("the device is gone")]
    Gone,
    /// writev(2) failed with another errno.
    #[error("writing to the device gave {0}")]
    Other(Errno),
}

/// A handle to write packets with; clones share the descriptor, and each keeps the device alive.
///
/// Each call is one writev(2), so any number of threads may inject at once; no order is promised between them.
#[derive(Clone, Debug)]
pub struct Injector {
    fd: Arc<OwnedFd>,
    udp_offload: bool,
}

impl Injector {
    pub(super) fn new(fd: Arc<OwnedFd>, udp_offload: bool) -> Self {
        Self { fd, udp_offload }
    }

    /// Returns whether UDP super-packets are taken; false before Linux 6.2.
    pub fn udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// Injects `[12-byte virtio_net_hdr][packet]`, as it stands in a frame behind the length.
    ///
    /// The kernel checks the header against the packet's length, not against its content: validate both first.
    ///
    /// # Errors
    /// The packet was not injected.
    pub fn inject(&self, vnet_and_packet: &[u8]) -> Result<(), InjectError> {
        self.inject_parts(&[IoSlice::new(vnet_and_packet)])
    }

    /// Injects a header and a packet in pieces that the kernel joins, at most 1024 (`UIO_MAXIOV`).
    ///
    /// # Errors
    /// Fails as [`Injector::inject`] does.
    pub fn inject_parts(&self, parts: &[IoSlice<'_>]) -> Result<(), InjectError> {
        let len = parts.iter().map(|part| part.len()).sum();
        if len < VnetHeader::LEN + MIN_PACKET_LEN {
            return Err(InjectError::TooShort { len });
        }
        loop {
            // TUN takes a packet whole or not at all, so the count written says nothing.
            return match nix::sys::uio::writev(&self.fd, parts) {
                Ok(_) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(InjectError::from(errno)),
            };
        }
    }
}

impl From<Errno> for InjectError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EINVAL | Errno::EMSGSIZE | Errno::E2BIG => Self::Invalid,
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => Self::NoMemory,
            Errno::EIO => Self::Down,
            Errno::EBADFD => Self::Gone,
            other => Self::Other(other),
        }
    }
}
