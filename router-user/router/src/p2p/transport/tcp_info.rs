//! What the kernel tells of a TCP connection, over one path or several.

use std::{io, mem::offset_of, os::fd::AsFd};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};

sockopt_impl!(
    /// The beginning of `struct tcp_info`.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoStart
);

/// `struct tcp_info` up to the last field that is read: a kernel fills what it knows, and this all of them know.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Default))]
#[repr(C)]
#[expect(unreachable_pub, reason = "the macro's type is public, and this is its value")]
pub struct TcpInfoStart {
    pub(super) state: u8,
    congestion_state: u8,
    pub(super) n_retransmits: u8,
    pub(super) n_probes: u8,
    before_unacked: [u8; 20],
    pub(super) n_unacked: u32,
    before_last_sent: [u32; 4],
    pub(super) last_sent_ms: u32,
    before_last_received: [u8; 4],
    pub(super) last_received_ms: u32,
    pub(super) last_acked_ms: u32,
    before_rtt: [u32; 2],
    pub(super) rtt_us: u32,
    before_total_retransmits: [u32; 7],
    pub(super) n_total_retransmits: u32,
    before_acked: [u32; 4],
    pub(super) n_acked: u64,
    pub(super) n_received: u64,
    pub(super) n_segments: [u32; 2],
    pub(super) n_unsent: u32,
    least_rtt_us: u32,
    n_data_segments_received: u32,
    pub(super) n_data_segments_sent: u32,
}

/// The level of socket options of Multipath TCP, and its option (`linux/mptcp.h`).
const SOL_MPTCP: libc::c_int = 284;
const MPTCP_INFO: libc::c_int = 1;

sockopt_impl!(
    /// The beginning of `struct mptcp_info`.
    MultipathInfo,
    GetOnly,
    SOL_MPTCP,
    MPTCP_INFO,
    MultipathInfoStart
);

/// `struct mptcp_info` up to the last field that is read, which all kernels know that know any of it (5.16).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(unreachable_pub, reason = "the macro's type is public, and this is its value")]
pub struct MultipathInfoStart {
    n_subflows: u8,
    counts: [u8; 5],
    flags_and_token: [u32; 2],
    write_seq: u64,
    unacked_seq: u64,
}

/// What the kernel tells of a connection.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Default))]
pub(super) struct ConnectionInfo {
    /// Of its path, or, if it may have several, of the first one, which may be dead while the connection goes on by another.
    pub(super) path: TcpInfoStart,
    /// Of all bytes that it was given, how many are not acknowledged, on whatever path; `None` if it has one path, or if the
    /// kernel does not tell.
    pub(super) n_unacked_by_all: Option<u64>,
}

impl ConnectionInfo {
    /// Asks the kernel of a connection, which may have several paths or not.
    pub(super) fn of(socket: &impl AsFd, multipath: bool) -> io::Result<Self> {
        let path = getsockopt(socket, TcpInfo)?;
        let whole = multipath
            .then(|| getsockopt(socket, MultipathInfo).ok())
            .flatten();
        Ok(Self {
            path,
            n_unacked_by_all: whole.map(|whole| whole.write_seq.wrapping_sub(whole.unacked_seq)),
        })
    }

    /// Returns how many of the `n_written` bytes that the connection was given are acknowledged.
    pub(super) fn n_acked(&self, n_written: u64) -> u64 {
        self.n_unacked_by_all
            .map_or(self.path.n_acked, |n_unacked| n_written.saturating_sub(n_unacked))
    }

    /// Returns how many bytes wait to be sent.
    pub(super) fn n_unsent(&self) -> u64 {
        // What waits for a dead path may have been sent by another.
        u64::from(self.path.n_unsent).min(self.n_unacked_by_all.unwrap_or(u64::MAX))
    }

    /// Says whether anything that was sent is not acknowledged.
    pub(super) fn is_unacked(&self) -> bool {
        self.n_unacked_by_all
            .map_or(self.path.n_unacked > 0, |n_unacked| n_unacked > 0)
    }

    /// Says whether nothing is known of the connection but that its first path is no more.
    pub(super) fn is_unknown(&self) -> bool {
        self.n_unacked_by_all.is_none() && self.path.state == STATE_CLOSED
    }
}

/// Says whether a connection may have several paths: both sides know Multipath TCP, and nothing between them has removed it.
pub(super) fn is_multipath(socket: &impl AsFd) -> bool {
    getsockopt(socket, MultipathInfo).is_ok()
}

/// The state of a connection that is no more (`TCP_CLOSE`). One over several paths may go on without the first of them.
const STATE_CLOSED: u8 = 7;

const _: () = {
    assert!(offset_of!(TcpInfoStart, n_retransmits) == offset_of!(libc::tcp_info, tcpi_retransmits));
    assert!(offset_of!(TcpInfoStart, n_probes) == offset_of!(libc::tcp_info, tcpi_probes));
    assert!(offset_of!(TcpInfoStart, n_unacked) == offset_of!(libc::tcp_info, tcpi_unacked));
    assert!(offset_of!(TcpInfoStart, last_sent_ms) == offset_of!(libc::tcp_info, tcpi_last_data_sent));
    assert!(offset_of!(TcpInfoStart, last_received_ms) == offset_of!(libc::tcp_info, tcpi_last_data_recv));
    assert!(offset_of!(TcpInfoStart, last_acked_ms) == offset_of!(libc::tcp_info, tcpi_last_ack_recv));
    assert!(offset_of!(TcpInfoStart, rtt_us) == offset_of!(libc::tcp_info, tcpi_rtt));
    assert!(offset_of!(TcpInfoStart, n_total_retransmits) == offset_of!(libc::tcp_info, tcpi_total_retrans));
    assert!(offset_of!(TcpInfoStart, n_acked) == offset_of!(libc::tcp_info, tcpi_bytes_acked));
    assert!(offset_of!(TcpInfoStart, n_unsent) == offset_of!(libc::tcp_info, tcpi_notsent_bytes));
    assert!(offset_of!(TcpInfoStart, n_data_segments_sent) == offset_of!(libc::tcp_info, tcpi_data_segs_out));
};
