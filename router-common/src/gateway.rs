//! Gateways as the kernel knows them: Ethernet interfaces whose arriving packets are captured.

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
}

const _: () = assert!(size_of::<Gateway>() == 8);
