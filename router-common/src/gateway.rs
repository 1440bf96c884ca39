//! Gateways as the kernel knows them: Ethernet interfaces whose arriving packets are captured.

use crate::slots::MAX_WORKERS;

/// Gateways a node can have.
pub const MAX_GATEWAYS: u32 = 64;

/// An interface, found by its index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Gateway {
    /// Its hardware address: frames for others, which a bridge or a sniffer shows it too, are not for us to forward.
    pub address: [u8; 6],
    /// Always 0.
    pub padding: [u8; 2],
    /// Where its sockets begin in the socket table, or [`NO_SOCKETS`]. The socket of a receive queue and a worker is
    /// `queue * MAX_WORKERS + worker` places behind.
    pub first_socket: u32,
    /// Receive queues with sockets.
    pub n_queues: u32,
}

/// A gateway without sockets: its packets go to the rings.
pub const NO_SOCKETS: u32 = u32::MAX;

/// Receive queues with sockets, of all gateways together.
pub const MAX_QUEUES: u32 = 128;

/// Places of the socket table.
pub const MAX_SOCKETS: u32 = MAX_QUEUES * MAX_WORKERS;

/// Longest record that fits a socket's frame: a page less the headroom that the kernel keeps (`XDP_PACKET_HEADROOM`).
pub const MAX_SOCKET_RECORD_LEN: u32 = 4096 - 256;

const _: () = assert!(size_of::<Gateway>() == 16);
