//! Gateway interfaces: attached at the start, and whenever the interface is another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use super::error::NodeError;
use super::gateway_sink::GatewaySink;
use crate::config::{Config, GatewaySection, Hook, Sink};
use crate::control::GatewayStatus;
use crate::device::{DeviceError, Netlink};
use crate::kernel::{
    AttachedGateway, GatewayHook, GatewayInterface, GatewayMode, Kernel, KernelError, SocketConsumer,
    SocketDrops, SocketPool,
};
use router_common::gateway::{Gateway, MAX_QUEUES, NO_SOCKETS};
use router_common::slots::MAX_WORKERS;

/// The gateways, in the order of the configuration, and the workers that drain their sockets. They are detached on drop,
/// and with [`Gateways::detach`]; sockets stay with their workers.
#[derive(Default)]
pub(super) struct Gateways(Mutex<State>);

#[derive(Default)]
struct State {
    gateways: Vec<RunningGateway>,
    workers: BTreeMap<u32, Arc<NewSockets>>,
    /// What the sockets of interfaces that are gone have dropped.
    dropped: SocketDrops,
}

struct RunningGateway {
    /// `None` while the program is not at an interface.
    attached: Option<AttachedGateway>,
    interface: GatewayInterface,
    config: GatewaySection,
    device_mtu: u32,
    sink: GatewaySink,
    first_socket: u32,
    /// Receive queues that it may have sockets at.
    max_queues: u32,
}

/// What the node has attached at an interface, as the kernel is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatewayPlace {
    /// Name of the interface.
    pub(super) name: String,
    /// Index of the interface, when it was attached to.
    pub(super) index: u32,
    /// Hardware address of the interface, as the program knows it.
    pub(super) address: [u8; 6],
    /// Id of the program that is attached; `None` while none is.
    pub(super) program: Option<u32>,
    /// The program's own table has the gateway.
    pub(super) in_table: bool,
}

/// Sockets for a running worker, which looks for them at each turn.
#[derive(Default)]
pub(super) struct NewSockets {
    waiting: AtomicBool,
    sockets: Mutex<Vec<Replacement>>,
}

/// Sockets at an interface that has come in the place of another.
pub(super) struct Replacement {
    /// Index of the interface that is gone: sockets at it are of no use.
    pub(super) gone: u32,
    /// Sockets at the other.
    pub(super) sockets: Vec<SocketConsumer>,
}

impl NewSockets {
    /// Returns what has come since the last call.
    pub(super) fn take(&self) -> Vec<Replacement> {
        // Relaxed: one that is not seen yet is seen at the next turn; the lock orders the rest.
        if !self.waiting.load(Relaxed) {
            return Vec::new();
        }
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Relaxed);
        std::mem::take(&mut *sockets)
    }

    fn put(&self, replacement: Replacement) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.push(replacement);
        self.waiting.store(true, Relaxed);
    }
}

impl Gateways {
    /// Attaches every gateway of the configuration. The peers' prefixes and the host's own are in the kernel's
    /// table by now.
    ///
    /// # Errors
    /// An interface is missing, carries no Ethernet frames, or cannot be attached to; none is attached then.
    pub(super) fn attach(
        config: &Config,
        kernel: &Kernel,
        interfaces: Vec<GatewayInterface>,
    ) -> Result<Self, NodeError> {
        let mut gateways = Vec::with_capacity(interfaces.len());
        let mut n_queues = 0;
        for (interface, config_of) in interfaces.into_iter().zip(config.gateways()) {
            let attached = attach(kernel, &interface, config_of)?;
            let device_mtu = config.device().mtu();
            let sink = sink(config_of, &attached);
            let sink = GatewaySink::open(sink, &interface, device_mtu, MAX_QUEUES - n_queues)?;
            let mut gateway = RunningGateway {
                attached: Some(attached),
                interface,
                config: config_of.clone(),
                device_mtu,
                sink,
                first_socket: n_queues * MAX_WORKERS,
                max_queues: 0,
            };
            gateway.max_queues = gateway.n_queues();
            n_queues += gateway.max_queues;
            gateway.write(kernel)?;
            gateway.report();
            gateways.push(gateway);
        }
        Ok(Self(Mutex::new(State {
            gateways,
            ..State::default()
        })))
    }

    /// Opens the sockets of a worker and redirects packets to them. There are none at gateways that use the rings.
    /// Sockets that it gets later are put in the place that is returned as well.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub(super) fn add_worker(
        &self,
        kernel: &Kernel,
        worker: u32,
    ) -> Result<(Vec<SocketConsumer>, Arc<NewSockets>), NodeError> {
        let mut state = self.lock();
        let mut all = Vec::new();
        for gateway in &state.gateways {
            all.extend(gateway.open_sockets(kernel, worker)?);
        }
        let later = Arc::new(NewSockets::default());
        state.workers.insert(worker, later.clone());
        Ok((all, later))
    }

    /// Forgets a worker, which keeps the sockets that it has.
    pub(super) fn remove_worker(&self, worker: u32) {
        self.lock().workers.remove(&worker);
    }

    /// Ends capturing at every gateway.
    pub(super) fn detach(&self) {
        let mut state = self.lock();
        state.workers.clear();
        for gateway in &mut state.gateways {
            gateway.attached = None;
        }
    }

    /// Returns what is attached where. A gateway that is attached nowhere has the place that it had last.
    pub(super) fn places(&self, kernel: &Kernel) -> Vec<GatewayPlace> {
        let place = |gateway: &RunningGateway| GatewayPlace {
            name: gateway.interface.name.clone(),
            index: gateway.interface.index,
            address: gateway.interface.address,
            program: gateway.attached.as_ref().map(AttachedGateway::program),
            in_table: gateway.attached.is_some() && gateway.is_written(kernel),
        };
        self.lock().gateways.iter().map(place).collect()
    }

    /// Attaches a gateway again, at the interface that has its name now, and gives the workers sockets there if it is
    /// another interface than before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn attach_again(
        &self,
        kernel: &Kernel,
        interface: GatewayInterface,
        is_attached: bool,
    ) -> Result<(), NodeError> {
        let mut state = self.lock();
        let State {
            gateways,
            workers,
            dropped,
        } = &mut *state;
        let named = gateways
            .iter_mut()
            .find(|gateway| gateway.interface.name == interface.name);
        let Some(gateway) = named else { return Ok(()) };
        let before = gateway.interface.index;
        let moved = before != interface.index;
        if moved || !is_attached {
            gateway.attached = None;
            if moved {
                kernel.gateways.remove(before);
            }
            let attached = attach(kernel, &interface, &gateway.config)?;
            if moved {
                let sink = sink(&gateway.config, &attached);
                let sink = GatewaySink::open(sink, &interface, gateway.device_mtu, gateway.max_queues)?;
                if let Some(pool) = gateway.sink.pool() {
                    dropped.add(pool.drops());
                }
                gateway.sink = sink;
            }
            gateway.attached = Some(attached);
        }
        gateway.interface = interface;
        let give = || {
            gateway.write(kernel)?;
            for (worker, place) in workers.iter().filter(|_| moved) {
                place.put(Replacement {
                    gone: before,
                    sockets: gateway.open_sockets(kernel, *worker)?,
                });
            }
            Ok(())
        };
        if let Err(error) = give() {
            // The next attempt begins anew.
            gateway.attached = None;
            gateway.interface.index = before;
            return Err(error);
        }
        gateway.report();
        Ok(())
    }

    /// Returns the gateways as `status` shows them.
    pub(super) fn status(&self) -> Vec<GatewayStatus> {
        self.lock().gateways.iter().map(RunningGateway::status).collect()
    }

    /// Counts, for `status`, what the sockets of the gateways drop.
    pub(super) fn drops(&self) -> SocketDrops {
        let state = self.lock();
        let mut sum = state.dropped;
        for pool in state.gateways.iter().filter_map(|gateway| gateway.sink.pool()) {
            sum.add(pool.drops());
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningGateway {
    fn n_queues(&self) -> u32 {
        self.sink.pool().map_or(0, SocketPool::n_queues)
    }

    /// Tells the program of the interface, and of its sockets.
    fn write(&self, kernel: &Kernel) -> Result<(), KernelError> {
        match self.n_queues() {
            0 => kernel.gateways.add(self.interface.index, self.interface.address),
            n => kernel
                .gateways
                .add_with_sockets(&self.interface, self.first_socket, n),
        }
    }

    fn is_written(&self, kernel: &Kernel) -> bool {
        let first_socket = match self.n_queues() {
            0 => NO_SOCKETS,
            _ => self.first_socket,
        };
        let wanted = Gateway {
            address: self.interface.address,
            padding: [0; 2],
            first_socket,
            n_queues: self.n_queues(),
        };
        kernel.gateways.get(self.interface.index) == Some(wanted)
    }

    fn open_sockets(&self, kernel: &Kernel, worker: u32) -> Result<Vec<SocketConsumer>, KernelError> {
        let sockets = self.sink.open_sockets().map_err(|source| KernelError::Sockets {
            interface: self.interface.name.clone(),
            source,
        })?;
        kernel.gateways.add_sockets(self.first_socket, worker, &sockets)?;
        Ok(sockets)
    }

    fn report(&self) {
        let GatewayStatus {
            interface,
            mode,
            reason,
            sink,
            sink_reason,
        } = self.status();
        if reason.is_some() || sink_reason.is_some() {
            warn!(
                interface,
                mode, reason, sink, sink_reason, "capturing at a gateway, not in the fastest way"
            );
        } else {
            info!(interface, mode, sink, "capturing at a gateway");
        }
    }

    fn status(&self) -> GatewayStatus {
        let (sink, sink_reason) = self.sink.status();
        let (mode, reason) = match &self.attached {
            Some(attached) => (attached.mode().to_string(), attached.reason().map(str::to_owned)),
            None => ("none".to_owned(), Some("the program is not attached".to_owned())),
        };
        GatewayStatus {
            interface: self.interface.name.clone(),
            mode,
            reason,
            sink,
            sink_reason,
        }
    }
}

/// Attaches by the hook that the configuration says, or by the faster one that the kernel has for the sink.
fn attach(
    kernel: &Kernel,
    interface: &GatewayInterface,
    config: &GatewaySection,
) -> Result<AttachedGateway, KernelError> {
    match (config.hook(), config.sink()) {
        (Hook::Tc, _) => kernel.attach_gateway(interface, GatewayHook::Tc),
        (Hook::Auto, Sink::Ring) => match kernel.attach_gateway(interface, GatewayHook::Tc) {
            Ok(attached) => Ok(attached),
            Err(why) => {
                let attached = kernel.attach_gateway(interface, GatewayHook::Xdp)?;
                Ok(attached.instead_of_tc(&why))
            }
        },
        (Hook::Auto | Hook::Xdp, _) => kernel.attach_gateway(interface, GatewayHook::Xdp),
    }
}

/// Sockets get their frames by XDP alone.
fn sink(config: &GatewaySection, attached: &AttachedGateway) -> Sink {
    match attached.mode() {
        GatewayMode::Tc => Sink::Ring,
        GatewayMode::Native | GatewayMode::Generic => config.sink(),
    }
}

/// Looks the configured interfaces up.
///
/// # Errors
/// An interface is missing, or carries no Ethernet frames.
pub(super) async fn interfaces(
    config: &Config,
    netlink: &Netlink,
) -> Result<Vec<GatewayInterface>, NodeError> {
    let mut interfaces = Vec::with_capacity(config.gateways().len());
    for gateway in config.gateways() {
        let name = gateway.interface().to_owned();
        let link = netlink.link_by_name(&name).await.map_err(DeviceError::from)?;
        let Some(link) = link else {
            return Err(NodeError::NoGateway { interface: name });
        };
        let Some(address) = link.ethernet_address else {
            return Err(NodeError::NotEthernet { interface: name });
        };
        interfaces.push(GatewayInterface {
            name,
            index: link.index,
            address,
        });
    }
    Ok(interfaces)
}
