//! What the kernel tells of a TCP connection.

use std::mem::offset_of;

use nix::{getsockopt_impl, libc, sockopt_impl};

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

/// The state of a connection that is no more (`TCP_CLOSE`). One over several paths may go on without the first of them.
pub(super) const STATE_CLOSED: u8 = 7;

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
