//! Writes packets into the host through the TUN device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use router_common::frame::{MIN_PACKET_LEN, VnetHeader};
use thiserror::Error;

/// Why a packet was not injected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InjectError {
    /// Shorter than an offload header with an IPv4 header.
    #[error("{len} bytes are less than an offload header with a packet")]
    TooShort {
        /// Bytes given.
        len: usize,
    },
    /// The kernel refuses the offload header, or header and packet contradict each other.
    #[error("the kernel refuses the offload header or the packet")]
    Invalid,
    /// No memory for the packet just now.
    #[error("the kernel has no memory for the packet")]
    NoMemory,
    /// The device is administratively down.
    #[error("the device is down")]
    Down,
    /// The device was removed.
    #[error("the device is gone")]
    Gone,
    /// Any other errno of write(2).
    #[error("writing to the device gave {0}")]
    Other(Errno),
}

/// A handle to write packets with; clones share the descriptor, and each keeps the device alive.
///
/// One call is one write(2): any number of threads may inject at once, and no order is promised between them.
#[derive(Clone, Debug)]
pub struct Injector {
    fd: Arc<OwnedFd>,
}

impl Injector {
    pub(super) fn new(fd: Arc<OwnedFd>) -> Self {
        Self { fd }
    }

    /// Injects `[12-byte virtio_net_hdr][packet]`, as it stands in a frame behind the length.
    ///
    /// The kernel checks the header against the packet's length, not against its content: validate both first.
    ///
    /// # Errors
    /// The packet was not injected.
    pub fn inject(&self, vnet_and_packet: &[u8]) -> Result<(), InjectError> {
        let len = vnet_and_packet.len();
        if len < VnetHeader::LEN + MIN_PACKET_LEN {
            return Err(InjectError::TooShort { len });
        }
        loop {
            // TUN takes a packet whole or not at all, so the count written says nothing.
            return match nix::unistd::write(&self.fd, vnet_and_packet) {
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
