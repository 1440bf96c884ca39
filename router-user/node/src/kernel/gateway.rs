//! The ingress hook of gateway interfaces: our XDP program, in the driver where it can, else in the kernel's receive path.

use std::error::Error;
use std::fmt;

use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};

use super::error::KernelError;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayInterface {
    /// Its name, for messages.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address: while it is another, packets go the host's way.
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
    /// Attaches `program` to `interface`: in the driver, or where that is refused in the receive path.
    pub(super) fn attach(program: &mut Xdp, interface: &GatewayInterface) -> Result<Self, KernelError> {
        let native = match attach(program, interface.index, XdpMode::Driver) {
            Ok(link) => {
                return Ok(Self {
                    mode: GatewayMode::Native,
                    reason: None,
                    _link: link,
                });
            }
            Err(error) => format!("the driver refused: {}", root_cause(&error)),
        };
        match attach(program, interface.index, XdpMode::Skb) {
            Ok(link) => Ok(Self {
                mode: GatewayMode::Generic,
                reason: Some(native),
                _link: link,
            }),
            Err(generic) => Err(KernelError::AttachGateway {
                interface: interface.name.clone(),
                native,
                source: Box::new(generic),
            }),
        }
    }

    /// Returns where the program runs.
    pub fn mode(&self) -> GatewayMode {
        self.mode
    }

    /// Returns why it does not run in the driver.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// Attaches by a BPF link (Linux 5.9), which ends with its descriptor and so with the process, however that ends.
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
