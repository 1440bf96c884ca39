//! Marks the packets of a socket.

use std::{io, os::fd::AsFd};

use nix::sys::socket::{setsockopt, sockopt};

use crate::p2p::config::Dscp;

/// Marks what a socket sends from now on. The bits of ECN stay the kernel's.
pub(super) fn mark(socket: &impl AsFd, is_ipv4: bool, dscp: Dscp) -> io::Result<()> {
    let class = i32::from(dscp.traffic_class());
    if class == 0 {
        return Ok(());
    }
    let marked = if is_ipv4 {
        setsockopt(socket, sockopt::Ipv4Tos, &class)
    } else {
        setsockopt(socket, sockopt::Ipv6TClass, &class)
    };
    Ok(marked?)
}
