//! The TUN device and its file descriptor.
#![expect(
    unsafe_code,
    reason = "ioctl(2) and taking over the descriptor of the `tun` crate"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::c_int;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::inject::Injector;
use router_common::frame::VnetHeader;

mod ioctl {
    //! The ioctls of `linux/if_tun.h` that the `tun` crate does not have.
    use nix::libc::c_int;

    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
    nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, c_int);
    nix::ioctl_write_ptr!(tun_set_vnet_le, b'T', 220, c_int);
    nix::ioctl_none!(tun_get_dev_netns, b'T', 227);
}

const TUN_F_CSUM: u64 = 0x01;
const TUN_F_TSO4: u64 = 0x02;
const TUN_F_TSO6: u64 = 0x04;
const TUN_F_TSO_ECN: u64 = 0x08;
const TUN_F_USO4: u64 = 0x20;
const TUN_F_USO6: u64 = 0x40;

const TCP_OFFLOADS: u64 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
const UDP_OFFLOADS: u64 = TUN_F_USO4 | TUN_F_USO6;

/// What to wait for at a device: that a packet can be read, or that it was deleted, of which the kernel tells by an error
/// alone.
pub const READ_OR_GONE: Interest = Interest::READABLE.add(Interest::ERROR);

/// Why the TUN device cannot be made.
#[derive(Debug, Error)]
pub enum TunError {
    /// There is no `/dev/net/tun`.
    #[error("/dev/net/tun cannot be opened; load the tun module (modprobe tun)")]
    NoDriver(#[source] io::Error),
    /// The process lacks the privilege.
    #[error(
        "no permission to create the device {name}; run as root, or with CAP_NET_ADMIN as a user who may open /dev/net/tun"
    )]
    Permission {
        /// Name of the device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The name is taken.
    #[error("the interface {name} exists already; remove it or choose another device.name")]
    NameTaken {
        /// Name of the device.
        name: String,
    },
    /// The kernel refused an operation.
    #[error("cannot {action} the device {name}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Name of the device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Where a TUN device is that this process has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the network namespace that it was made in.
    Here,
    /// In another network namespace.
    Elsewhere,
    /// Nowhere: it was deleted.
    Deleted,
}

/// A network namespace, by device and inode of its file.
type NamespaceId = (u64, u64);

/// A TUN device with a 12-byte `virtio_net_hdr` before each packet; it goes away with its last descriptor.
///
/// The descriptor is non-blocking. It reads what the egress program let pass, and [`Tun::injector`] writes to it.
#[derive(Clone, Debug)]
pub struct Tun {
    fd: Arc<OwnedFd>,
    udp_offload: bool,
    /// Where it was made; `None` if the kernel does not tell (before Linux 5.1).
    home: Option<NamespaceId>,
}

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread. The caller has checked that the name is
    /// free, because the kernel joins an idle persistent TUN device instead of refusing its name.
    pub(super) fn create(name: &str) -> Result<Self, TunError> {
        let mut settings = tun::Configuration::default();
        settings.tun_name(name);
        settings.platform_config(|linux| {
            linux.vnet_hdr(true);
            // Whatever it would configure by ioctl is configured through netlink.
            linux.ensure_root_privileges(false);
        });
        let device = tun::create(&settings).map_err(|error| creation_error(name, error))?;
        device
            .set_nonblock()
            .map_err(|source| refused("make non-blocking", name, source))?;
        // SAFETY: into_raw_fd gives the descriptor away, so nobody else closes it.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        let header_len = VnetHeader::LEN as c_int;
        // SAFETY: the descriptor is open and the kernel reads one int through the pointer.
        unsafe { ioctl::tun_set_vnet_hdr_sz(fd.as_raw_fd(), &header_len) }
            .map_err(|errno| refused("set the virtio_net_hdr size of", name, errno))?;
        let yes: c_int = 1;
        // SAFETY: as above.
        unsafe { ioctl::tun_set_vnet_le(fd.as_raw_fd(), &yes) }
            .map_err(|errno| refused("set the virtio_net_hdr byte order of", name, errno))?;
        let udp_offload = set_offloads(&fd, name)?;
        let home = namespace(&fd).unwrap_or_default();
        Ok(Self {
            fd: Arc::new(fd),
            udp_offload,
            home,
        })
    }

    /// Returns where the device is now.
    pub fn whereabouts(&self) -> Whereabouts {
        match (namespace(&self.fd), self.home) {
            (Err(Errno::EBADFD), _) => Whereabouts::Deleted,
            // A namespace of another owner is not told. Any other error, such as for want of descriptors, passes.
            (Err(Errno::EPERM), Some(_)) => Whereabouts::Elsewhere,
            (Ok(now), home) if now != home => Whereabouts::Elsewhere,
            _ => Whereabouts::Here,
        }
    }

    /// Returns whether UDP super-packets pass whole; false before Linux 6.2.
    pub fn udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// Returns a handle that writes packets into the host.
    pub fn injector(&self) -> Injector {
        Injector::new(Arc::clone(&self.fd), self.udp_offload)
    }

    /// Returns the device on the current runtime's reactor, to wait with [`READ_OR_GONE`].
    ///
    /// # Errors
    /// The reactor cannot take the descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is shared by counting, so it stays open, and the same, for as long as `self` lives.
        Ok(unsafe { AsyncFd::register_with_interest(self, READ_OR_GONE) }?)
    }

    /// Reads one packet with its header; `None` when none waits.
    ///
    /// # Errors
    /// What read(2) gives; `EBADFD` once the device was removed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(&self.fd, buffer) {
            Ok(n_bytes) => Ok(Some(n_bytes)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Lets `tokio::io::unix::AsyncFd` own the device.
impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Returns the network namespace that the device of a descriptor is in; `None` if the kernel does not tell.
fn namespace(fd: &OwnedFd) -> Result<Option<NamespaceId>, Errno> {
    // SAFETY: the descriptor is open, and the call has no argument.
    let namespace = match unsafe { ioctl::tun_get_dev_netns(fd.as_raw_fd()) } {
        // SAFETY: a descriptor that the kernel has just given us.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        Err(Errno::EINVAL | Errno::ENOTTY) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let metadata = File::from(namespace).metadata().map_err(|_error| Errno::EIO)?;
    Ok(Some((metadata.dev(), metadata.ino())))
}

/// Turns on every offload that the kernel has, and returns whether those for UDP are among them.
fn set_offloads(fd: &OwnedFd, name: &str) -> Result<bool, TunError> {
    // SAFETY: the descriptor is open and the argument is passed by value.
    let set = |offloads| unsafe { ioctl::tun_set_offload(fd.as_raw_fd(), offloads) };
    match set(TCP_OFFLOADS | UDP_OFFLOADS) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => {
            set(TCP_OFFLOADS).map_err(|errno| refused("set the offloads of", name, errno))?;
            Ok(false)
        }
        Err(errno) => Err(refused("set the offloads of", name, errno)),
    }
}

fn creation_error(name: &str, error: tun::Error) -> TunError {
    let source = match error {
        tun::Error::Io(source) => source,
        other => io::Error::other(other),
    };
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver(source),
        Some(Errno::EPERM | Errno::EACCES) => TunError::Permission {
            name: name.to_owned(),
            source,
        },
        Some(Errno::EBUSY | Errno::EEXIST) => TunError::NameTaken {
            name: name.to_owned(),
        },
        _ => refused("create", name, source),
    }
}

fn refused(action: &'static str, name: &str, source: impl Into<io::Error>) -> TunError {
    TunError::Refused {
        action,
        name: name.to_owned(),
        source: source.into(),
    }
}
