//! The check that a TCP port is free.
//!
//! libp2p listens with `SO_REUSEPORT`, so a second node of the same user would share the port of the first, and each
//! would get some of the connections.

use std::{io, net::IpAddr, os::fd::AsRawFd};

use libp2p::{Multiaddr, multiaddr::Protocol};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

/// Returns the error of the system if `address` is a TCP address that cannot be bound exclusively.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let mut protocols = address.iter();
    let ip = match protocols.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let Some(Protocol::Tcp(port)) = protocols.next() else {
        return Ok(());
    };
    let family = if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connections of an earlier run that have not quite ended do not matter.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if ip.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(std::net::SocketAddr::new(ip, port)),
    )?;
    Ok(())
}
