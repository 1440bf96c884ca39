//! The ingress hooks of gateway interfaces: our TC program behind the kernel's merging of frames, or our XDP program, in the
//! driver where it can, else in the kernel's receive path.

use std::error::Error;
use std::fmt;

use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::error::KernelError;

/// A hook that frames come by as they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayHook {
    /// Before all filters (TCX, Linux 6.6), once the kernel has merged frames of a flow.
    Tc,
    /// Before the kernel does anything with a frame.
    Xdp,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayMode {
    /// Before all filters, once the kernel has merged frames of a flow.
    Tc,
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the kernel's receive path, with any driver.
    Generic,
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
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
    program: u32,
    _link: Link,
}

/// Ends with its descriptor and so with the process, however that ends.
#[derive(Debug)]
#[expect(dead_code, reason = "its drop is what it is for")]
enum Link {
    Tc(SchedClassifierLink),
    Xdp(XdpLink),
}

impl AttachedGateway {
    /// Attaches `program` to `interface` before all filters and other programs.
    pub(super) fn attach_tc(
        program: &mut SchedClassifier,
        interface: &GatewayInterface,
    ) -> Result<Self, KernelError> {
        let failed = |source: ProgramError| KernelError::AttachGatewayTc {
            interface: interface.name.clone(),
            source: Box::new(source),
        };
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program
            .attach_with_options(&interface.name, TcAttachType::Ingress, first)
            .map_err(failed)?;
        Ok(Self {
            mode: GatewayMode::Tc,
            reason: None,
            _link: Link::Tc(program.take_link(id).map_err(failed)?),
            program: program.info().map_err(failed)?.id(),
        })
    }

    /// Attaches `program` to `interface`: in the driver, or where that is refused in the receive path.
    pub(super) fn attach_xdp(program: &mut Xdp, interface: &GatewayInterface) -> Result<Self, KernelError> {
        let failed = |native: String, source: ProgramError| KernelError::AttachGateway {
            interface: interface.name.clone(),
            native,
            source: Box::new(source),
        };
        let (mode, reason, link) = match attach(program, interface.index, XdpMode::Driver) {
            Ok(link) => (GatewayMode::Native, None, link),
            Err(error) => {
                let native = format!("the driver refused: {}", root_cause(&error));
                match attach(program, interface.index, XdpMode::Skb) {
                    Ok(link) => (GatewayMode::Generic, Some(native), link),
                    Err(generic) => return Err(failed(native, generic)),
                }
            }
        };
        Ok(Self {
            program: program
                .info()
                .map_err(|error| failed("attached".to_owned(), error))?
                .id(),
            mode,
            reason,
            _link: Link::Xdp(link),
        })
    }

    /// Says that the program would rather be at another hook, and why it is not.
    pub fn instead_of_tc(mut self, why: &KernelError) -> Self {
        let no_tc = format!("no TC: {}", root_cause(why));
        self.reason = Some(match self.reason {
            Some(reason) => format!("{no_tc}; {reason}"),
            None => no_tc,
        });
        self
    }

    /// Returns the id of the program.
    pub fn program(&self) -> u32 {
        self.program
    }

    /// Returns where the program runs.
    pub fn mode(&self) -> GatewayMode {
        self.mode
    }

    /// Returns why it does not run in a faster way.
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
