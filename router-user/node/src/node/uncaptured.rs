//! Packets that the egress program left to the device: read, counted and dropped, so that its queue never fills.

use std::io;
use std::sync::Arc;

use super::counters::{PacketCounter, PacketCounters};
use crate::device::Tun;

/// Bytes read of a packet, which is only counted; the kernel drops the rest.
const READ_BYTES: usize = 64;

/// Reads, counts and drops the packets of `device` for as long as it exists.
///
/// # Errors
/// The device cannot be read.
pub(super) async fn run(device: Tun, counters: Arc<PacketCounters>) -> io::Result<()> {
    let device = device.into_async()?;
    let mut buffer = [0; READ_BYTES];
    loop {
        let mut guard = device.readable().await?;
        match guard.try_io(|device| read_one(device.get_ref(), &mut buffer)) {
            Ok(read) => {
                read?;
                counters.add(PacketCounter::TxNotCaptured, 1);
            }
            Err(_would_block) => {}
        }
    }
}

fn read_one(device: &Tun, buffer: &mut [u8]) -> io::Result<usize> {
    device
        .try_read(buffer)?
        .ok_or_else(|| io::ErrorKind::WouldBlock.into())
}
