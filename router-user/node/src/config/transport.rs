//! The `[transport]` section.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::node::optional_path;
use super::problem::Problems;
use super::reader::Table;
use super::uplink;
use stream_router::p2p::{
    CongestionControl, Dscp, MAX_CONNECTIONS_PER_PEER, NetworkConfig, ProxyConfig, ProxyExemption, TcpConfig,
    TransportKind, UplinkConfig,
};

const ALLOWED: &str = "\"tcp\" and \"quic\", each once, the preferred one first";

/// Most connections that the file may ask for: half of what a peer may have, as both sides may dial at once.
const MOST_CONNECTIONS: u32 = MAX_CONNECTIONS_PER_PEER as u32 / 2;

/// How long packets wait for an absent peer unless told otherwise: a connection is made or replaced in less.
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(3);

/// The longest time that packets may wait. Their senders' own patience ends about then.
const MAX_HOLD_TIME: Duration = Duration::from_secs(60);

/// The mark of the node's sockets unless told otherwise. It has none of the bits that Kubernetes, Cilium and Tailscale
/// give a meaning of their own.
const DEFAULT_FWMARK: u32 = 0x2053;
/// The shortest and the longest time between two pings that the file may ask for.
const LEAST_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(5 * 60);

const CONGESTION_ALLOWED: &str =
    "one of those in /proc/sys/net/ipv4/tcp_available_congestion_control, such as \"cubic\" or \"bbr\"";

const PROXY_ALLOWED: &str =
    "\"http://HOST:PORT\" or \"socks5://HOST:PORT\", also with USER:PASSWORD@ before the host";

const PROXY_OF_USER_ALLOWED: &str =
    "\"http://USER@HOST:PORT\" or \"socks5://USER@HOST:PORT\" beside proxy_password_file";

const NO_PROXY_ALLOWED: &str =
    "addresses, networks and names, such as \"192.0.2.7\", \"192.168.0.0/16\" and \"example.org\"";

const KEEPALIVE_ALLOWED: &str = "a duration from \"1s\" to \"5m\", such as \"25s\"";

/// The shortest and the longest time without packets after which a connection on demand may be closed.
const LEAST_IDLE_TIME: Duration = Duration::from_secs(1);
const MAX_IDLE_TIME: Duration = Duration::from_secs(24 * 60 * 60);

const IDLE_TIME_ALLOWED: &str = "a duration from \"1s\" to \"1day\", such as \"5m\"";

/// Longer than it takes a packet to come from a host nearby, so that more would only cost.
const MAX_BUSY_POLL: Duration = Duration::from_millis(1);
const BUSY_POLL_ALLOWED: &str = "a duration from \"0us\" to \"1ms\", such as \"100us\"";

const HOLD_TIME_ALLOWED: &str = "a duration from \"0s\" to \"60s\", such as \"3s\"";

/// Which of a peer's addresses are dialled first, how often, how long packets wait for it, and how the packets of
/// connections are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportSection {
    quic_first: bool,
    connections_per_peer: Option<u32>,
    hold_time: Duration,
    busy_poll: Duration,
    dscp: Dscp,
    fwmark: Option<NonZeroU32>,
    tcp: TcpConfig,
    uplinks: Vec<UplinkConfig>,
    proxy_password_file: Option<PathBuf>,
    keepalive: Duration,
    idle_time: Duration,
    punch: bool,
    port_mapping: bool,
}

impl TransportSection {
    /// Returns the most connections to a peer that its streams are spread over: by default as many as there are data
    /// threads, of which there are `n_threads`.
    pub fn connections_per_peer(&self, n_threads: u32) -> u32 {
        self.connections_per_peer
            .unwrap_or_else(|| n_threads.clamp(1, MOST_CONNECTIONS))
    }

    /// Returns how long packets wait for a peer from the beginning of its absence.
    pub fn hold_time(&self) -> Duration {
        self.hold_time
    }

    /// Returns how long a worker looks for the next packet before it sleeps.
    pub fn busy_poll(&self) -> Duration {
        self.busy_poll
    }

    /// Returns the mark of the packets of connections between nodes.
    pub fn dscp(&self) -> Dscp {
        self.dscp
    }

    /// Returns the mark of the node's own sockets for routing rules, if they have one.
    pub fn fwmark(&self) -> Option<NonZeroU32> {
        self.fwmark
    }

    /// Returns the file with the password of the proxy's user, if it has one.
    pub fn proxy_password_file(&self) -> Option<&Path> {
        self.proxy_password_file.as_deref()
    }

    /// Returns how TCP connections are made, but for the password of [`Self::proxy_password_file`].
    pub fn tcp(&self) -> &TcpConfig {
        &self.tcp
    }

    /// Returns the ways by which connections leave the host; none, and its routes say.
    pub fn uplinks(&self) -> &[UplinkConfig] {
        &self.uplinks
    }

    /// Returns the longest time between two pings on a connection that carries nothing.
    pub fn keepalive(&self) -> Duration {
        self.keepalive
    }

    /// Returns the time without packets after which a connection to a peer on demand is closed.
    pub fn idle_time(&self) -> Duration {
        self.idle_time
    }

    /// Returns whether direct connections are agreed on with peers that are connected through a relay.
    pub fn punch(&self) -> bool {
        self.punch
    }

    /// Returns whether the default gateway is asked to forward ports to this node.
    pub fn port_mapping(&self) -> bool {
        self.port_mapping
    }

    /// Returns whether QUIC addresses are dialled first.
    pub(super) fn quic_first(&self) -> bool {
        self.quic_first
    }

    /// Returns how many connections to a peer the file says, if it does.
    pub(super) fn n_connections(&self) -> Option<u32> {
        self.connections_per_peer
    }

    /// Returns `self` with the preference of `new`.
    pub(super) fn with_preference_of(&self, new: &Self) -> Self {
        Self {
            quic_first: new.quic_first,
            ..self.clone()
        }
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let mut names = Vec::new();
        for found in table.strings("prefer", ALLOWED, problems).unwrap_or_default() {
            if !["tcp", "quic"].contains(&found.value.as_str()) {
                problems.add(
                    &found.place,
                    format!("{:?} is no transport", found.value),
                    ALLOWED,
                );
            } else if names.contains(&found.value) {
                problems.add(
                    &found.place,
                    format!("{:?} is listed twice", found.value),
                    ALLOWED,
                );
            } else {
                names.push(found.value);
            }
        }
        let connections_per_peer = table.integer("connections_per_peer", 1..=MOST_CONNECTIONS, problems);
        let hold_time = duration(
            &mut table,
            "hold_time",
            Duration::ZERO..=MAX_HOLD_TIME,
            HOLD_TIME_ALLOWED,
            problems,
        );
        let busy_poll = duration(
            &mut table,
            "busy_poll",
            Duration::ZERO..=MAX_BUSY_POLL,
            BUSY_POLL_ALLOWED,
            problems,
        );
        let keepalive = duration(
            &mut table,
            "keepalive",
            LEAST_KEEPALIVE..=MAX_KEEPALIVE,
            KEEPALIVE_ALLOWED,
            problems,
        );
        let idle_time = duration(
            &mut table,
            "idle_time",
            LEAST_IDLE_TIME..=MAX_IDLE_TIME,
            IDLE_TIME_ALLOWED,
            problems,
        );
        let dscp = table.integer("dscp", 0..=Dscp::MAX.into(), problems);
        let fwmark = table.integer("fwmark", 0..=u32::MAX, problems);
        let password_place = table.absent("proxy_password_file");
        let proxy_password_file = optional_path(&mut table, "proxy_password_file", problems);
        let tcp = read_tcp(&mut table, proxy_password_file.is_some(), problems);
        if proxy_password_file.is_some() && tcp.proxy.is_none() {
            let problem = "there is no transport.proxy whose password it has";
            problems.add(
                &password_place,
                problem,
                "proxy_password_file together with proxy",
            );
        }
        let punch = table.boolean("punch", problems);
        let port_mapping = table.boolean("port_mapping", problems);
        let uplinks = uplink::read(table.tables("uplink", problems), problems);
        table.finish(problems);
        Self {
            quic_first: names.first().is_some_and(|name| name == "quic"),
            connections_per_peer: connections_per_peer.map(|found| found.value),
            hold_time: hold_time.unwrap_or(DEFAULT_HOLD_TIME),
            busy_poll: busy_poll.unwrap_or_default(),
            dscp: dscp
                .and_then(|found| Dscp::new(u8::try_from(found.value).ok()?))
                .unwrap_or_default(),
            fwmark: NonZeroU32::new(fwmark.map_or(DEFAULT_FWMARK, |found| found.value)),
            tcp,
            uplinks,
            proxy_password_file,
            keepalive: keepalive.unwrap_or(NetworkConfig::DEFAULT_KEEPALIVE),
            idle_time: idle_time.unwrap_or(NetworkConfig::DEFAULT_IDLE_TIME),
            punch: punch.unwrap_or(true),
            port_mapping: port_mapping.unwrap_or(false),
        }
    }

    /// Returns the transport whose addresses are dialled first.
    pub fn preferred(&self) -> TransportKind {
        match self.quic_first {
            true => TransportKind::Quic,
            false => TransportKind::Tcp,
        }
    }

    /// Puts the preferred transport's addresses first; each transport's own stay in their order.
    pub(super) fn sort(&self, addresses: &mut [Multiaddr]) {
        addresses.sort_by_key(|address| is_quic(address) != self.quic_first);
    }
}

fn read_tcp(table: &mut Table<'_>, has_password_file: bool, problems: &mut Problems) -> TcpConfig {
    let congestion = table
        .string("congestion", CONGESTION_ALLOWED, problems)
        .and_then(|text| {
            let name = CongestionControl::new(&text.value);
            if name.is_none() {
                let problem = format!("{:?} is no congestion control", text.value);
                problems.add(&text.place, problem, CONGESTION_ALLOWED);
            }
            name
        });
    let multipath = table.boolean("mptcp", problems).unwrap_or_default();
    let mut direct: Vec<ProxyExemption> = Vec::new();
    let no_proxy = table.strings("no_proxy", NO_PROXY_ALLOWED, problems);
    for text in no_proxy.iter().flatten() {
        match text.value.parse() {
            Ok(exemption) => direct.push(exemption),
            Err(error) => problems.add(
                &text.place,
                format!("{:?}: {error}", text.value),
                NO_PROXY_ALLOWED,
            ),
        }
    }
    let url = table.string("proxy", PROXY_ALLOWED, problems);
    if let (Some(first), None) = (no_proxy.iter().flatten().next(), &url) {
        let problem = "there is no transport.proxy that it is an exception from";
        problems.add(&first.place, problem, "no_proxy together with proxy");
    }
    let (read, allowed): (fn(&str, _) -> _, _) = match has_password_file {
        true => (ProxyConfig::of_user, PROXY_OF_USER_ALLOWED),
        false => (ProxyConfig::new, PROXY_ALLOWED),
    };
    let proxy = url.and_then(|text| match read(&text.value, direct) {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            // Not with the text, which may have a password.
            problems.add(&text.place, error.to_string(), allowed);
            None
        }
    });
    TcpConfig {
        congestion,
        multipath,
        proxy,
    }
}

pub(super) fn duration(
    table: &mut Table<'_>,
    name: &'static str,
    range: RangeInclusive<Duration>,
    allowed: &str,
    problems: &mut Problems,
) -> Option<Duration> {
    let text = table.string(name, allowed, problems)?;
    let wrong = match humantime::parse_duration(&text.value) {
        Ok(time) if range.contains(&time) => return Some(time),
        Ok(_) => format!("{:?} is out of range", text.value),
        Err(error) => format!("{:?} is no duration: {error}", text.value),
    };
    problems.add(&text.place, wrong, allowed);
    None
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| protocol == Protocol::QuicV1)
}
