//! The kernel side: loads and pins the eBPF object, attaches it, and shares its maps.

mod attach;
mod bpf;
mod error;
mod flow_reader;
mod flow_table;
mod gateway;
mod mapped;
mod maps;
mod object;
mod pins;
mod prefixes;
mod ring;
mod settings;
mod tables;
mod xsk;

pub use error::KernelError;
pub use flow_reader::FlowReader;
pub use flow_table::{FlowTable, Reading, STEP_ENTRIES};
pub use gateway::{AttachedGateway, GatewayInterface, GatewayMode};
pub use object::{Kernel, KernelConfig};
pub use pins::BPFFS;
pub use ring::{RingBell, RingConsumer, RingGauge};
pub use xsk::{CopyMode, SocketConsumer, SocketDrops, SocketPool};
