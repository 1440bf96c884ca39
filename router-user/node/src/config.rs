//! The configuration: a TOML file in, a validated [`Config`] or every problem with the file out.
//!
//! ```toml
//! [node]
//! name = "berlin"                                                         # none by default
//! key = "/var/lib/stream-router/identity.key"                             # the default
//! listen = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1",     # the default, the IPv6 ones if the host has it
//!           "/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1"]
//! control = "/run/stream-router/control.sock"                             # the default
//! [device]
//! name = "sr0"                                                            # the default
//! addresses = ["10.42.0.1/24", "fd42::1/64"]
//! mtu = 1420                                                              # the default
//! [workers]                                                               # all optional, these are the defaults
//! min = 4
//! initial = 8
//! max = 32
//! queue_size = 2000                                                       # less with little memory
//! threads = 4                                                             # half the CPUs
//! scale_interval = "5s"
//! scale_up = 0.75
//! scale_down = 0.25
//! [connections]                                                           # likewise
//! ttl = "5s"
//! cleanup_interval = "5s"
//! max_entries = 262144                                                    # likewise
//! shards = 16
//! [streams]                                                               # likewise
//! min_per_peer = 1
//! max_per_peer = 10
//! throughput_threshold = 100000
//! scale_interval = "5s"
//! scale_up = 0.8
//! scale_down = 0.3
//! [transport]                                                             # likewise
//! prefer = ["tcp", "quic"]
//! hold_time = "3s"
//! [[transport.uplink]]                                                    # any number up to 4, none by default
//! device = "wan0"                                                         # or source = "192.0.2.1"
//! weight = 1                                                              # the default
//! cost = 0                                                                # the default
//! metered = false                                                         # the default
//! [log]                                                                   # likewise
//! level = "info"
//! format = "auto"                                                         # or "human", "json", "journald"
//! [discovery]                                                             # likewise
//! mdns = false
//! dht = false
//! announce = []
//! [metrics]                                                               # nothing is served without
//! listen = "127.0.0.1:9464"
//! [otlp]                                                                  # nothing is sent without
//! endpoint = "http://127.0.0.1:4318"
//! [exit]                                                                  # likewise
//! serve = false
//! [relay]                                                                 # likewise
//! via = ["paris"]
//! serve = false
//! max_circuits = 128
//! max_circuits_per_peer = 16
//! max_rate = 100000000                                                    # none by default
//! max_rate_per_peer = 20000000                                            # likewise
//! [hooks]                                                                 # none by default
//! peer_up = ["/usr/local/bin/notify", "up"]
//! [[gateway]]                                                             # any number, none by default
//! interface = "lan0"
//! hook = "auto"                                                           # the default; or "tc", "xdp"
//! sink = "ring"                                                           # the default; or "af_xdp", "auto"
//! [[peer]]
//! name = "paris"                                                          # none by default
//! id = "12D3KooW..."
//! addresses = ["/ip4/192.0.2.2/tcp/4001"]                                 # may be empty: the peer dials us
//! allowed_ips = ["10.42.0.2/32", "fd42::2/128", "192.168.7.0/24"]
//! enabled = true                                                          # the default
//! ```
//!
//! Beside it there may be drop-ins with more peers, see [`DropIn`].
//!
//! The file is read field by field instead of into serde types, because serde stops at the first mistake. A new section
//! is a file beside the others with a `read(Table, &mut Problems)`, called in [`Config::parse`].

mod address;
mod between;
mod changes;
mod device;
mod device_name;
mod discovery;
mod drop_in;
mod exit;
mod gateway;
mod hooks;
mod instance;
mod invite;
mod log;
mod memory;
mod metrics;
mod name;
mod node;
mod otlp;
mod own_invite;
mod owners;
mod peer;
mod problem;
mod reader;
mod relay;
mod router;
#[cfg(test)]
pub(crate) mod tests;
mod transport;
mod uplink;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ipnet::IpNet;

pub use changes::Changes;
use device::RawDevice;
pub use device::{DeviceSection, OnStop};
pub use discovery::DiscoverySection;
pub use drop_in::DropIn;
pub use exit::ExitSection;
use gateway::RawGateway;
pub use gateway::{GatewaySection, Hook, Sink};
pub use hooks::HooksSection;
use instance::NodeDefaults;
pub use instance::{DEFAULT_CONTROL_SOCKET, DEFAULT_KEY_FILE, INSTANCE_DIRECTORY, Instance};
pub(crate) use invite::parse_network;
pub use invite::{Invite, InviteError};
pub use log::{LogFormat, LogSection};
use memory::Sizes;
pub use memory::{MemoryLimit, free_memory, kibibytes, peers_bytes, table_bytes};
pub use metrics::MetricsSection;
pub(crate) use name::parse_name;
pub use node::{INSTALLED_CONFIG, NodeSection};
pub use otlp::{OtlpEndpoint, OtlpSection};
pub(crate) use own_invite::{for_others, is_open, own_prefixes};
pub use peer::PeerSection;
use peer::RawPeer;
use problem::Problems;
pub use problem::{ConfigError, Problem};
use reader::{Lines, Table, document};
use relay::RawRelay;
pub use relay::RelaySection;
pub use stream_router::config::{ConnectionsConfig, StreamRouterConfig, StreamsConfig, WorkersConfig};
pub(crate) use stream_router::config::{MAX_STREAMS_PER_PEER, ScalingConfig};
use stream_router::p2p::regular_file;
use stream_router_engine::route_plan::{self, RouteTable};
pub use transport::TransportSection;
pub use uplink::is_metered;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    node: NodeSection,
    device: DeviceSection,
    router: StreamRouterConfig,
    transport: TransportSection,
    log: LogSection,
    discovery: DiscoverySection,
    metrics: MetricsSection,
    otlp: OtlpSection,
    exit: ExitSection,
    relay: RelaySection,
    hooks: HooksSection,
    gateways: Vec<GatewaySection>,
    peers: Vec<PeerSection>,
    disabled: Vec<PeerSection>,
}

impl Config {
    /// Reads and validates a file with its drop-ins.
    ///
    /// # Errors
    /// One of them cannot be read, or is wrong; the error then has every problem.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse_with(&text, path, &DropIn::all_of(path)?)
    }

    /// Reads and validates a file that is to be there the next time as well: not a pipe, which would end or stand still.
    ///
    /// # Errors
    /// Those of [`Config::load`]; the file is no regular one.
    pub fn load_regular(path: &Path) -> Result<Self, ConfigError> {
        let text = regular_file::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse_with(&text, path, &DropIn::all_of(path)?)
    }

    /// Validates the text of a file that has no drop-ins; `file` only names it in problems.
    ///
    /// # Errors
    /// Every problem in the text. A text that is not TOML is not looked at further than its syntax.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(text, file, &[])
    }

    /// Validates the text of a file and of its drop-ins.
    ///
    /// # Errors
    /// Those of [`Config::parse`], and every problem in the drop-ins.
    pub fn parse_with(text: &str, file: &Path, drop_ins: &[DropIn]) -> Result<Self, ConfigError> {
        let sizes = MemoryLimit::own().map(|limit| Sizes::within(limit.bytes));
        Self::parse_sized(text, file, drop_ins, sizes)
    }

    /// Validates texts; sizes that they do not say are those of `sizes`, or else the library's.
    fn parse_sized(
        text: &str,
        file: &Path,
        drop_ins: &[DropIn],
        sizes: Option<Sizes>,
    ) -> Result<Self, ConfigError> {
        let lines = Lines::new(file.into(), text);
        let mut problems = Problems::new(file.into());
        let Some(document) = document(text, &lines, &mut problems) else {
            return Err(problems.into_error());
        };
        let mut root = Table::root(document.get_ref(), &lines);
        let instance = Instance::of_file(file).unwrap_or_else(|wrong| {
            let place = lines.place(1, "the name of the file");
            problems.add(&place, wrong, device_name::NAME_ALLOWED);
            None
        });
        let defaults = NodeDefaults::of(instance.as_ref());
        let node = NodeSection::read(root.table("node", &mut problems), &defaults, &mut problems);
        let device = RawDevice::read(root.table("device", &mut problems), &defaults, &mut problems);
        let router = router::read(&mut root, sizes, &mut problems);
        let transport = TransportSection::read(root.table("transport", &mut problems), &mut problems);
        let log = LogSection::read(root.table("log", &mut problems), &mut problems);
        let discovery = DiscoverySection::read(root.table("discovery", &mut problems), &mut problems);
        let metrics = MetricsSection::read(root.table("metrics", &mut problems), &mut problems);
        let otlp = OtlpSection::read(root.table("otlp", &mut problems), &mut problems);
        let exit = ExitSection::read(root.table("exit", &mut problems), &mut problems);
        let relay = RawRelay::read(root.table("relay", &mut problems), &mut problems);
        let hooks = HooksSection::read(root.table("hooks", &mut problems), &mut problems);
        let gateways: Vec<RawGateway> = root
            .tables("gateway", &mut problems)
            .into_iter()
            .map(|section| RawGateway::read(section, &mut problems))
            .collect();
        let sections = root.tables("peer", &mut problems);
        let mut peers: Vec<RawPeer> = sections
            .into_iter()
            .map(|section| RawPeer::read(section, &mut problems))
            .collect();
        root.finish(&mut problems);
        for drop_in in drop_ins {
            peers.extend(drop_in.peers(&mut problems));
        }
        between::identities(&node, &peers, &mut problems);
        let (peers, disabled): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.enabled);
        between::limits(&disabled, &mut problems);
        between::check(&node, &discovery, &relay, &device, &peers, &mut problems);
        between::unmarked(&transport, &peers, &mut problems);
        let relay = relay.validated(&peers, &mut problems);
        gateway::check(&gateways, &device, &mut problems);
        if !problems.is_empty() {
            return Err(problems.into_error());
        }
        let gateways = gateways.into_iter().filter_map(RawGateway::validated).collect();
        let n_peers = peers.len();
        let validated = |peers: Vec<RawPeer>| {
            let peers = peers.into_iter();
            peers
                .filter_map(|peer| peer.validated(&transport, n_peers))
                .collect()
        };
        let (peers, disabled) = (validated(peers), validated(disabled));
        Ok(Self {
            node,
            device: device.validated(),
            router,
            transport,
            log,
            discovery,
            metrics,
            otlp,
            exit,
            relay,
            hooks,
            gateways,
            peers,
            disabled,
        })
    }

    /// Returns the section of the node itself.
    pub fn node(&self) -> &NodeSection {
        &self.node
    }

    /// Returns the section of the TUN device.
    pub fn device(&self) -> &DeviceSection {
        &self.device
    }

    /// Returns workers, connections and streams: the sections that a router for embedders has as well.
    pub fn router(&self) -> &StreamRouterConfig {
        &self.router
    }

    /// Returns the section that says how many workers there are.
    pub fn workers(&self) -> &WorkersConfig {
        self.router.workers()
    }

    /// Returns the section of the connection table.
    pub fn connections(&self) -> &ConnectionsConfig {
        self.router.connections()
    }

    /// Returns the section of the connections to a peer.
    pub fn transport(&self) -> &TransportSection {
        &self.transport
    }

    /// Returns the section that says which relays this node uses, and whether it is one.
    pub fn relay(&self) -> &RelaySection {
        &self.relay
    }

    /// Returns the section that says how peers are found.
    pub fn discovery(&self) -> &DiscoverySection {
        &self.discovery
    }

    /// Returns the section that says how many streams a peer has.
    pub fn streams(&self) -> &StreamsConfig {
        self.router.streams()
    }

    /// Returns the section that says what is logged, and how.
    pub fn log(&self) -> &LogSection {
        &self.log
    }

    /// Returns the section of metrics, health and the status page.
    pub fn metrics(&self) -> &MetricsSection {
        &self.metrics
    }

    /// Returns the section of what is sent to a collector of OpenTelemetry.
    pub fn otlp(&self) -> &OtlpSection {
        &self.otlp
    }

    /// Returns the section of what the node does for peers whose way to everywhere leads through it.
    pub fn exit(&self) -> &ExitSection {
        &self.exit
    }

    /// Returns the commands that are run as the node and its peers come and go.
    pub fn hooks(&self) -> &HooksSection {
        &self.hooks
    }

    /// Returns the gateways in the order of the file. There may be none.
    pub fn gateways(&self) -> &[GatewaySection] {
        &self.gateways
    }

    /// Returns the peers that are enabled, in the order of the file, and of its drop-ins. There may be none.
    pub fn peers(&self) -> &[PeerSection] {
        &self.peers
    }

    /// Returns the peers that are configured and not enabled, in the same order.
    pub fn disabled(&self) -> &[PeerSection] {
        &self.disabled
    }

    /// Returns the networks of all peers with the routing table of each.
    pub fn routes(&self) -> BTreeMap<IpNet, RouteTable> {
        let addresses = self.peers.iter().flat_map(|peer| peer.addresses());
        let underlay = addresses.filter_map(address::ip_of).collect();
        let networks = self
            .peers
            .iter()
            .map(|peer| (peer.allowed_ips(), peer.overrides()));
        route_plan::plan(networks, &underlay)
    }
}
