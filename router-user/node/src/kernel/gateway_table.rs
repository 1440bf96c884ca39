//! What the gateway program knows of its interfaces: their addresses, and the sockets of their queues.

use std::os::fd::AsRawFd;
use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, XskMap};

use super::error::KernelError;
use super::gateway::GatewayInterface;
use super::maps::{lock, map_failed, take};
use super::xsk::SocketConsumer;
use router_common::gateway::{Gateway, NO_SOCKETS};
use router_common::names;
use router_common::slots::MAX_WORKERS;

/// The interfaces at which the gateway program captures, and where it redirects to.
pub struct KernelGateways {
    interfaces: Mutex<HashMap<MapData, u32, Gateway>>,
    sockets: Mutex<XskMap<MapData>>,
}

impl KernelGateways {
    /// Takes both tables out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            interfaces: Mutex::new(take(ebpf, names::GATEWAYS)?),
            sockets: Mutex::new(take(ebpf, names::SOCKETS)?),
        })
    }

    /// Tells the program of an interface, by its index.
    ///
    /// # Errors
    /// The table of gateways cannot be written.
    pub fn add(&self, index: u32, address: [u8; 6]) -> Result<(), KernelError> {
        self.write(index, address, NO_SOCKETS, 0)
    }

    /// Tells the program that an interface has sockets, from `first_socket` on in the socket table.
    ///
    /// # Errors
    /// The table of gateways cannot be written.
    pub fn add_with_sockets(
        &self,
        interface: &GatewayInterface,
        first_socket: u32,
        n_queues: u32,
    ) -> Result<(), KernelError> {
        self.write(interface.index, interface.address, first_socket, n_queues)
    }

    /// Redirects to a worker's sockets, one for each queue, of the interface whose sockets begin at `first_socket`;
    /// a closed socket leaves its place by itself.
    ///
    /// # Errors
    /// The socket table cannot be written.
    pub fn add_sockets(
        &self,
        first_socket: u32,
        worker: u32,
        sockets: &[SocketConsumer],
    ) -> Result<(), KernelError> {
        let mut table = lock(&self.sockets);
        for (queue, socket) in (0..).zip(sockets) {
            let place = first_socket + queue * MAX_WORKERS + worker;
            table
                .set(place, socket.as_raw_fd(), 0)
                .map_err(map_failed("write", names::SOCKETS))?;
        }
        Ok(())
    }

    /// Returns what the program knows of the interface with this index.
    pub fn get(&self, index: u32) -> Option<Gateway> {
        lock(&self.interfaces).get(&index, 0).ok()
    }

    /// Makes the program forget an interface; one that it does not know is no error.
    pub fn remove(&self, index: u32) {
        // Without an entry there is nothing to forget, and the interface with this index is gone.
        let _ = lock(&self.interfaces).remove(&index);
    }

    fn write(
        &self,
        index: u32,
        address: [u8; 6],
        first_socket: u32,
        n_queues: u32,
    ) -> Result<(), KernelError> {
        let gateway = Gateway {
            address,
            padding: [0; 2],
            first_socket,
            n_queues,
        };
        lock(&self.interfaces)
            .insert(index, gateway, 0)
            .map_err(map_failed("write", names::GATEWAYS))
    }
}
