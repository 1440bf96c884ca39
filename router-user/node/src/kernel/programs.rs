//! The programs of one device: loaded, pinned, attached.

use std::path::Path;
use std::sync::Mutex;

use aya::Ebpf;
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};

use super::attach::attach_egress;
use super::bpf::{TcxHook, tcx};
use super::error::KernelError;
use super::gateway::{AttachedGateway, GatewayHook, GatewayInterface};
use super::maps::lock;
use super::pins::Pins;
use router_common::names;

/// The programs, and where they are attached. Dropping it detaches and unpins.
pub struct KernelPrograms {
    loaded: Mutex<Loaded>,
    pins: Option<Pins>,
    device: String,
}

struct Loaded {
    ebpf: Ebpf,
    egress: Option<SchedClassifierLinkId>,
}

impl KernelPrograms {
    /// Owns the programs for `device` from now on, of which the one for its egress is loaded.
    pub(super) fn new(ebpf: Ebpf, pins: Option<Pins>, device: String) -> Self {
        Self {
            loaded: Mutex::new(Loaded { ebpf, egress: None }),
            pins,
            device,
        }
    }

    /// Begins to capture at the egress of the device.
    ///
    /// # Errors
    /// The kernel refuses the hook.
    pub fn attach_egress(&self) -> Result<(), KernelError> {
        let mut loaded = lock(&self.loaded);
        let link = attach_egress(egress(&mut loaded.ebpf)?, &self.device)?;
        loaded.egress = Some(link);
        Ok(())
    }

    /// Captures at the egress of the device called `device` before all filters, whatever has become of the filter that
    /// [`KernelPrograms::attach_egress`] made there. It is removed if `is_own` knows it by priority and handle: somebody
    /// else's may have its place.
    ///
    /// # Errors
    /// The kernel refuses the hook.
    pub fn attach_egress_again(
        &self,
        device: &str,
        is_own: impl FnOnce(u16, u32) -> bool,
    ) -> Result<(), KernelError> {
        let mut loaded = lock(&self.loaded);
        let before = loaded.egress.take();
        let program = egress(&mut loaded.ebpf)?;
        let before = before.and_then(|link| program.take_link(link).ok());
        let link = attach_egress(program, device);
        if let Some(before) = before {
            match (before.priority(), before.handle()) {
                (Ok(priority), Ok(handle)) if is_own(priority, handle.into()) => drop(before),
                // To drop it is to detach what has its place.
                _ => std::mem::forget(before),
            }
        }
        loaded.egress = Some(link?);
        Ok(())
    }

    /// Returns the id of the program for the egress of the device.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn egress_id(&self) -> Result<u32, KernelError> {
        let mut loaded = lock(&self.loaded);
        let info = egress(&mut loaded.ebpf)?.info();
        let info = info.map_err(|error| KernelError::load("to tell of the egress program", error))?;
        Ok(info.id())
    }

    /// Returns the ids of the programs that packets come by at an interface before all filters. Where the kernel has no
    /// place for them, or does not tell, there are none.
    pub fn before_filters(&self, interface: u32) -> Vec<u32> {
        tcx(interface, TcxHook::Egress).unwrap_or_default()
    }

    /// Returns the ids of the programs at the ingress of an interface beside filters (TCX), as
    /// [`KernelPrograms::before_filters`] does for its egress.
    pub fn at_ingress(&self, interface: u32) -> Vec<u32> {
        tcx(interface, TcxHook::Ingress).unwrap_or_default()
    }

    /// Ends capturing; rings keep what they hold.
    ///
    /// # Errors
    /// The kernel refuses to detach.
    pub fn detach_egress(&self) -> Result<(), KernelError> {
        let mut loaded = lock(&self.loaded);
        let Some(link) = loaded.egress.take() else {
            return Ok(());
        };
        egress(&mut loaded.ebpf)?
            .detach(link)
            .map_err(|error| KernelError::Attach {
                device: self.device.clone(),
                source: Box::new(error),
            })
    }

    /// Loads and pins the gateway program for `hook`; nothing is attached yet.
    ///
    /// # Errors
    /// The kernel refuses the program or its pin.
    pub fn load_gateway(&self, hook: GatewayHook) -> Result<(), KernelError> {
        let mut loaded = lock(&self.loaded);
        let name = match hook {
            GatewayHook::Tc => names::PROGRAM_GATEWAY_TC,
            GatewayHook::Xdp => names::PROGRAM_GATEWAY,
        };
        let program = loaded.ebpf.program_mut(name);
        let program = program.ok_or(KernelError::Missing { name })?;
        if program.fd().is_ok() {
            return Ok(());
        }
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => return Err(KernelError::Missing { name }),
        }
        .map_err(|error| KernelError::load("the gateway program", error))?;
        let Some(pins) = &self.pins else { return Ok(()) };
        pins.pin(name, |path| program.pin(path))
    }

    /// Attaches the gateway program for `hook`, which is loaded, to `interface`.
    pub(super) fn attach_gateway(
        &self,
        interface: &GatewayInterface,
        hook: GatewayHook,
    ) -> Result<AttachedGateway, KernelError> {
        let mut loaded = lock(&self.loaded);
        match hook {
            GatewayHook::Tc => AttachedGateway::attach_tc(gateway_tc(&mut loaded.ebpf)?, interface),
            GatewayHook::Xdp => AttachedGateway::attach_xdp(gateway_xdp(&mut loaded.ebpf)?, interface),
        }
    }

    /// Returns the names of the pins that somebody has removed.
    pub fn missing_pins(&self) -> Vec<String> {
        self.pins.as_ref().map(Pins::missing).unwrap_or_default()
    }

    /// Pins again what somebody has unpinned.
    ///
    /// # Errors
    /// The system refuses.
    pub fn pin_again(&self) -> Result<(), KernelError> {
        self.pins.as_ref().map_or(Ok(()), Pins::restore)
    }

    /// Returns where programs and maps are pinned, if they are.
    pub fn pin_directory(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::directory)
    }
}

/// Returns the program for the egress of the device.
pub(super) fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    program(ebpf, names::PROGRAM_EGRESS)
}

fn gateway_tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    program(ebpf, names::PROGRAM_GATEWAY_TC)
}

fn gateway_xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    program(ebpf, names::PROGRAM_GATEWAY)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name);
    program
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing { name })
}
