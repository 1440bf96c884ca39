//! The ingress hook of gateway interfaces: our XDP program, in the driver where it can, else in the kernel's receive path.

use std::error::Error;
use std::fmt;
use std::os::fd::AsRawFd;

use aya::maps::{HashMap, XskMap};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};

use super::error::KernelError;
use super::maps::{map, map_failed};
use super::object::Kernel;
use super::xsk::SocketConsumer;
use router_common::gateway::{Gateway, NO_SOCKETS};
use router_common::names;
use router_common::slots::MAX_WORKERS;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayMode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the kernel's receive path, with any driver.
    Generic,
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An interface to attach to.
#[derive(Clone, Debug)]
pub struct GatewayInterface {
    /// Its name, for messages.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address. Should it change, its packets go the host's way until the next start.
    pub address: [u8; 6],
}

/// The program at the ingress of an interface. Dropping it detaches, and so does the end of the process.
#[derive(Debug)]
pub struct AttachedGateway {
    mode: GatewayMode,
    reason: Option<String>,
    _link: XdpLink,
}

impl AttachedGateway {
    /// Where the program runs.
    pub fn mode(&self) -> GatewayMode {
        self.mode
    }

    /// Why it does not run in the driver.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl Kernel {
    /// Loads and pins the gateway program; nothing is attached yet.
    ///
    /// # Errors
    /// The kernel refuses the program or its pin.
    pub fn load_gateway(&self) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        let program = gateway(&mut ebpf)?;
        if program.fd().is_ok() {
            return Ok(());
        }
        program
            .load()
            .map_err(|error| KernelError::load("the gateway program", error))?;
        let Some(path) = self.pin_directory().map(|pins| pins.join(names::PROGRAM_GATEWAY)) else {
            return Ok(());
        };
        program.pin(&path).map_err(|error| KernelError::Pins {
            action: "pin",
            path,
            source: Box::new(error),
        })
    }

    /// Tells the gateway program of an interface.
    ///
    /// # Errors
    /// The table of gateways cannot be written.
    pub fn add_gateway(&self, index: u32, address: [u8; 6]) -> Result<(), KernelError> {
        self.write_gateway(
            index,
            Gateway {
                address,
                padding: [0; 2],
                first_socket: NO_SOCKETS,
                n_queues: 0,
            },
        )
    }

    /// Tells the gateway program that an interface has sockets, from `first_socket` on in the socket table.
    ///
    /// # Errors
    /// The table of gateways cannot be written.
    pub fn add_gateway_sockets(
        &self,
        interface: &GatewayInterface,
        first_socket: u32,
        n_queues: u32,
    ) -> Result<(), KernelError> {
        self.write_gateway(
            interface.index,
            Gateway {
                address: interface.address,
                padding: [0; 2],
                first_socket,
                n_queues,
            },
        )
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
        let mut ebpf = self.lock();
        let mut table =
            XskMap::try_from(map(&mut ebpf, names::SOCKETS)?).map_err(map_failed("open", names::SOCKETS))?;
        for (queue, socket) in (0..).zip(sockets) {
            let place = first_socket + queue * MAX_WORKERS + worker;
            table
                .set(place, socket.as_raw_fd(), 0)
                .map_err(map_failed("write", names::SOCKETS))?;
        }
        Ok(())
    }

    fn write_gateway(&self, index: u32, gateway: Gateway) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        HashMap::try_from(map(&mut ebpf, names::GATEWAYS)?)
            .and_then(|mut gateways| gateways.insert(index, gateway, 0))
            .map_err(map_failed("write", names::GATEWAYS))
    }

    /// Begins to capture what arrives at `interface`: in the driver, or where that is refused in the receive path.
    ///
    /// # Errors
    /// The kernel refuses both.
    pub fn attach_gateway(&self, interface: &GatewayInterface) -> Result<AttachedGateway, KernelError> {
        self.load_gateway()?;
        self.add_gateway(interface.index, interface.address)?;
        let mut ebpf = self.lock();
        let program = gateway(&mut ebpf)?;
        let (mode, reason, link) = match attach(program, interface.index, XdpMode::Driver) {
            Ok(link) => (GatewayMode::Native, None, link),
            Err(native) => {
                let reason = format!("the driver refused: {}", root_cause(&native));
                let link = attach(program, interface.index, XdpMode::Skb).map_err(|generic| {
                    KernelError::AttachGateway {
                        interface: interface.name.clone(),
                        native: reason.clone(),
                        source: Box::new(generic),
                    }
                })?;
                (GatewayMode::Generic, Some(reason), link)
            }
        };
        Ok(AttachedGateway {
            mode,
            reason,
            _link: link,
        })
    }
}

fn gateway(ebpf: &mut aya::Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut(names::PROGRAM_GATEWAY);
    program
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing {
            name: names::PROGRAM_GATEWAY,
        })
}

/// By a BPF link (Linux 5.9), which ends with its descriptor and so with the process, however that ends.
fn attach(program: &mut Xdp, index: u32, mode: XdpMode) -> Result<XdpLink, ProgramError> {
    let id = program.attach_to_if_index(index, mode)?;
    program.take_link(id)
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
