//! Marks of a socket: the code point in its packets, which networks see, and the number by which the host's rules route them.

use std::{io, num::NonZeroU32, os::fd::AsFd};

use nix::sys::socket::{setsockopt, sockopt};

use crate::p2p::config::Dscp;

/// The marks of the sockets of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::p2p) struct SocketMarks {
    /// The code point of the packets.
    pub(in crate::p2p) dscp: Dscp,
    /// The number that routing rules of the host see (`SO_MARK`).
    pub(in crate::p2p) fwmark: Option<NonZeroU32>,
}

impl SocketMarks {
    /// Marks what a socket sends from now on. The bits of ECN stay the kernel's.
    ///
    /// A TCP socket that is accepted has the mark for routing of the listening one.
    pub(super) fn apply(self, socket: &impl AsFd, is_ipv4: bool) -> io::Result<()> {
        self.apply_fwmark(socket)?;
        let class = i32::from(self.dscp.traffic_class());
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

    /// Sets the mark for routing alone, before a socket is connected or listens.
    pub(in crate::p2p) fn apply_fwmark(self, socket: &impl AsFd) -> io::Result<()> {
        match self.fwmark {
            Some(mark) => Ok(setsockopt(socket, sockopt::Mark, &mark.get())?),
            None => Ok(()),
        }
    }
}
