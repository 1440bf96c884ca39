//! The way from a gateway's interface to the workers: their rings, or AF_XDP sockets.

use std::io;

use crate::config::Sink;
use crate::kernel::{CopyMode, GatewayInterface, KernelError, SocketConsumer, SocketPool};
use router_common::gateway::MAX_SOCKET_RECORD_LEN;
use router_common::record::RecordHeader;

/// Length of an Ethernet header with two tags.
const MAX_ETHERNET_LEN: u32 = 22;

/// Name of the workers' rings in `status`.
const RING: &str = "ring buffer";

/// The way that one gateway's packets take.
pub(super) struct GatewaySink {
    pool: Option<SocketPool>,
    reason: Option<String>,
}

impl GatewaySink {
    /// Opens sockets at `interface` where `sink` asks for them, at no more than `max_queues` receive queues.
    ///
    /// # Errors
    /// The configuration asks for sockets, and the kernel gives none.
    pub(super) fn open(
        sink: Sink,
        interface: &GatewayInterface,
        device_mtu: u32,
        max_queues: u32,
    ) -> Result<Self, KernelError> {
        if sink == Sink::Ring {
            return Ok(Self {
                pool: None,
                reason: None,
            });
        }
        let open = |mode| {
            fits_a_frame(device_mtu)?;
            SocketPool::open(interface.index, mode, max_queues)
        };
        let (opened, reason) = match open(CopyMode::ZeroCopy) {
            Ok(pool) => (Ok(Some(pool)), None),
            Err(error) => {
                let pool = match sink {
                    Sink::AfXdp => open(CopyMode::Copy).map(Some),
                    Sink::Auto | Sink::Ring => Ok(None),
                };
                (pool, Some(format!("no zero-copy: {error}")))
            }
        };
        let pool = opened.map_err(|source| KernelError::Sockets {
            interface: interface.name.clone(),
            source,
        })?;
        Ok(Self { pool, reason })
    }

    /// Returns the sockets' pool, unless the rings are the way.
    pub(super) fn pool(&self) -> Option<&SocketPool> {
        self.pool.as_ref()
    }

    /// Opens a worker's sockets, one for each queue; none without a pool.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub(super) fn open_sockets(&self) -> io::Result<Vec<SocketConsumer>> {
        self.pool
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), SocketPool::open_sockets)
    }

    /// Returns the sink as `status` shows it, and why it is no faster one.
    pub(super) fn status(&self) -> (String, Option<String>) {
        let sink = match &self.pool {
            Some(pool) => format!("AF_XDP, {}", pool.mode()),
            None => RING.to_owned(),
        };
        (sink, self.reason.clone())
    }
}

/// Checks that every packet fits a socket's frame. A longer one would go through the ring, out of order with its flow.
fn fits_a_frame(device_mtu: u32) -> io::Result<()> {
    let most = MAX_SOCKET_RECORD_LEN - RecordHeader::LEN as u32 - MAX_ETHERNET_LEN;
    if device_mtu > most {
        let wrong = format!("device.mtu is {device_mtu}, and a socket's frame holds packets of {most} bytes");
        return Err(io::Error::other(wrong));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_packet_that_fits_a_socket_fits_with_two_tags() {
        let most = MAX_SOCKET_RECORD_LEN - RecordHeader::LEN as u32 - MAX_ETHERNET_LEN;

        assert!(fits_a_frame(most).is_ok());
        let refused = fits_a_frame(most + 1).unwrap_err().to_string();
        assert!(refused.contains(&format!("packets of {most} bytes")), "{refused}");
    }

    #[test]
    fn a_gateway_that_asks_for_the_rings_opens_no_socket() {
        let interface = GatewayInterface {
            name: "lan0".to_owned(),
            index: u32::MAX,
            address: [0; 6],
        };
        let sink = GatewaySink::open(Sink::Ring, &interface, 1420, 1).unwrap();

        assert!(sink.pool().is_none());
        assert!(sink.open_sockets().unwrap().is_empty());
        assert_eq!(sink.status(), ("ring buffer".to_owned(), None));
    }

    #[test]
    fn packets_too_long_for_a_socket_take_the_ring_only_where_that_is_a_choice() {
        let interface = GatewayInterface {
            name: "lan0".to_owned(),
            index: u32::MAX,
            address: [0; 6],
        };
        let open = |sink| GatewaySink::open(sink, &interface, 9000, 1);

        let (sink, reason) = open(Sink::Auto).unwrap().status();
        assert_eq!(sink, "ring buffer");
        assert!(reason.unwrap().starts_with("no zero-copy: device.mtu is 9000"));
        assert!(matches!(
            open(Sink::AfXdp),
            Err(KernelError::Sockets { interface, .. }) if interface == "lan0"
        ));
    }
}
