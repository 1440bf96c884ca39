//! Offloads and driver of an interface (kernel: `include/uapi/linux/ethtool.h`).
#![expect(unsafe_code, reason = "SIOCETHTOOL, which no crate we use wraps")]

use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Work that an interface does for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// It computes the checksums of what is sent.
    TxChecksum,
    /// It cuts TCP super-packets.
    Tso,
    /// Super-packets stay whole up to the driver.
    Gso,
    /// It merges the packets that arrive.
    Gro,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`, of which only the driver's name counts here.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    others: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

impl Offload {
    fn command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x16,
            Self::Tso => 0x1e,
            Self::Gso => 0x23,
            Self::Gro => 0x2b,
        }
    }
}

/// Returns whether an interface of the calling thread's network namespace has an offload turned on.
///
/// # Errors
/// There is no such interface, or the kernel does not say.
pub fn has_offload(interface: &str, offload: Offload) -> io::Result<bool> {
    let mut value = EthtoolValue {
        command: offload.command(),
        data: 0,
    };
    ask(interface, &mut value)?;
    Ok(value.data != 0)
}

/// Returns the name of the driver of an interface.
///
/// # Errors
/// There is no such interface, or the kernel does not say.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        others: [0; 160],
    };
    ask(interface, &mut info)?;
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Asks the driver; `T` is the structure of the command that it begins with.
fn ask<T>(interface: &str, about: &mut T) -> io::Result<()> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: integers, and a pointer that is set below, may be 0.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(about).cast();
    // SAFETY: the kernel reads the request and writes to `about`, as long as its command says, which is the whole of it.
    let asked = unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    Errno::result(asked)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_offloads_and_no_interface_has_none() {
        assert!(has_offload("lo", Offload::Gso).unwrap());
        assert!(has_offload("lo", Offload::Tso).unwrap());
        assert!(has_offload("nosuch0", Offload::Gso).is_err());
        assert!(has_offload("a-name-that-is-too-long", Offload::Gso).is_err());
    }
}
