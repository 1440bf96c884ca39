//! One lookup, with the system's resolvers and its file of hosts, over sockets with the node's marks: what is asked to
//! bring the tunnel up does not go through it.

use std::{future::Future, io, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use hickory_resolver::{
    Resolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{
        NetError,
        runtime::{
            RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime, iocompat::AsyncIoTokioAsStd,
        },
    },
    proto::rr::{RData, RecordType},
    system_conf::read_system_conf,
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use super::{NameError, NameKind, NamedAddress};
use crate::p2p::{
    address::{check_peer_address, ip_of},
    transport::SocketMarks,
};

/// How long a resolver may take for an answer until it is asked again, and how often.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Most addresses that a name stands for.
const MAX_ADDRESSES: usize = 16;

/// Most names in a row that stand for names (`/dnsaddr`).
const MAX_DEPTH: usize = 3;

/// The prefix of the text record that has an address of a peer, and that of the name which has such records.
const ADDRESS_RECORD: &str = "dnsaddr=";
const ADDRESS_NAME: &str = "_dnsaddr.";

/// How the names of a peer are looked up.
pub(super) struct Query {
    pub(super) marks: SocketMarks,
    pub(super) is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Whose name is looked up; a host that is no peer has no records of addresses.
    pub(super) peer: Option<PeerId>,
}

/// The resolvers of the system as they are now.
struct System {
    resolver: Resolver<MarkedSockets>,
    /// Who is asked, for an operator.
    asked: String,
}

impl Query {
    /// Returns what an address stands for that begins with a name: addresses to dial, those of IPv6 and IPv4 in turns.
    pub(super) async fn resolve(&self, named: &Multiaddr) -> Result<Vec<Multiaddr>, NameError> {
        let mut addresses = self.expand(named.clone(), MAX_DEPTH).await?;
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    /// Returns the error of a lookup that takes too long.
    pub(super) fn too_slow(&self, named: &Multiaddr) -> NameError {
        let (config, _) = system();
        NameError::NoAnswer {
            name: name_of(named),
            cause: "no answer in time".to_owned(),
            asked: self.asked(&config),
        }
    }

    fn expand(&self, address: Multiaddr, depth: usize) -> BoxFuture<'_, Result<Vec<Multiaddr>, NameError>> {
        async move {
            let Some(named) = NamedAddress::of(&address) else {
                return Ok(vec![address]);
            };
            let system = self.system(&named)?;
            match named.kind {
                NameKind::Addresses => self.expand_records(&system, &named, depth).await,
                NameKind::Ip | NameKind::Ip4 | NameKind::Ip6 => self.ips(&system, &named).await,
            }
        }
        .boxed()
    }

    async fn ips(&self, system: &System, named: &NamedAddress<'_>) -> Result<Vec<Multiaddr>, NameError> {
        let found = system.resolver.lookup_ip(&*named.name).await;
        let found = found.map_err(|error| system.error(&named.name, &error))?;
        // The file of hosts has what it has.
        let wanted = |ip: &IpAddr| match named.kind {
            NameKind::Ip4 => ip.is_ipv4(),
            NameKind::Ip6 => ip.is_ipv6(),
            NameKind::Ip | NameKind::Addresses => true,
        };
        let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = found.iter().filter(wanted).partition(IpAddr::is_ipv6);
        let first = *v6
            .first()
            .or(v4.first())
            .ok_or_else(|| system.no_address(&named.name))?;
        let usable = in_turns(v6, v4).filter(|ip| self.is_usable(*ip));
        let addresses: Vec<_> = usable
            .map(|ip| Multiaddr::from(ip).iter().chain(named.rest.iter()).collect())
            .collect();
        match addresses.is_empty() {
            true => Err(NameError::Unusable {
                name: named.name.to_string(),
                ip: first,
            }),
            false => Ok(addresses),
        }
    }

    /// Looks up the addresses that text records have, of which some may begin with names.
    async fn expand_records(
        &self,
        system: &System,
        named: &NamedAddress<'_>,
        depth: usize,
    ) -> Result<Vec<Multiaddr>, NameError> {
        let name = format!("{ADDRESS_NAME}{}", named.name);
        let found = system.resolver.lookup(&*name, RecordType::TXT).await;
        let found = found.map_err(|error| system.error(&name, &error))?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.to_string()),
            _ => None,
        });
        let mut addresses = Vec::new();
        let mut last_error = system.no_address(&name);
        for address in texts.filter_map(|text| self.of_record(&text)).take(MAX_ADDRESSES) {
            if let Some(ip) = ip_of(&address) {
                match self.is_usable(ip) {
                    true => addresses.push(address),
                    false => {
                        let name = name.clone();
                        last_error = NameError::Unusable { name, ip };
                    }
                }
            } else if depth > 0 {
                match self.expand(address, depth - 1).await {
                    Ok(more) => addresses.extend(more),
                    Err(error) => last_error = error,
                }
            }
        }
        match addresses.is_empty() {
            true => Err(last_error),
            false => Ok(addresses),
        }
    }

    /// Returns the address in a text record if it is one of the peer, without the peer's id.
    fn of_record(&self, text: &str) -> Option<Multiaddr> {
        let address: Multiaddr = text.strip_prefix(ADDRESS_RECORD)?.parse().ok()?;
        check_peer_address(&address, self.peer?).ok()?;
        let is_id = |part: &Protocol<'_>| matches!(part, Protocol::P2p(_));
        Some(address.iter().filter(|part| !is_id(part)).collect())
    }

    /// Says whether the peer may be dialled at an address: not through the tunnel that is being brought up.
    fn is_usable(&self, ip: IpAddr) -> bool {
        let is_on_the_link = match ip {
            IpAddr::V4(v4) => v4.is_broadcast(),
            // Without the interface a link-local address says nothing.
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
        !(is_on_the_link || ip.is_unspecified() || ip.is_multicast() || self.leads_inside(ip))
    }

    /// Says whether what is sent to an address would go through the tunnel. A mark keeps it out.
    fn leads_inside(&self, ip: IpAddr) -> bool {
        self.marks.fwmark.is_none() && (self.is_inner)(ip)
    }

    /// Says who is asked, for an operator.
    fn asked(&self, config: &ResolverConfig) -> String {
        let servers = config
            .name_servers()
            .iter()
            .map(|server| match (self.is_inner)(server.ip) {
                true => format!("{}, which is inside the tunnel", server.ip),
                false => server.ip.to_string(),
            });
        servers.collect::<Vec<_>>().join(", ")
    }

    fn system(&self, named: &NamedAddress<'_>) -> Result<System, NameError> {
        let (config, mut options) = system();
        let (domain, search) = (config.domain().cloned(), config.search().to_vec());
        let (inside, outside): (Vec<NameServerConfig>, Vec<_>) = config
            .name_servers()
            .iter()
            .cloned()
            .partition(|server| self.leads_inside(server.ip));
        if let (Some(server), true) = (inside.first(), outside.is_empty()) {
            return Err(NameError::ResolverInside {
                name: named.name.to_string(),
                resolver: server.ip,
            });
        }
        let config = ResolverConfig::from_parts(domain, search, outside);
        let asked = self.asked(&config);
        // What is remembered would hide a change.
        options.cache_size = 0;
        options.timeout = ANSWER_LIMIT;
        options.attempts = ATTEMPTS;
        options.ip_strategy = match named.kind {
            NameKind::Ip4 => LookupIpStrategy::Ipv4Only,
            NameKind::Ip6 => LookupIpStrategy::Ipv6Only,
            NameKind::Ip | NameKind::Addresses => LookupIpStrategy::Ipv6AndIpv4,
        };
        let sockets = MarkedSockets {
            marks: self.marks,
            plain: TokioRuntimeProvider::default(),
        };
        let mut builder = Resolver::builder_with_config(config, sockets);
        *builder.options_mut() = options;
        match builder.build() {
            Ok(resolver) => Ok(System { resolver, asked }),
            Err(error) => Err(NameError::NoAnswer {
                name: named.name.to_string(),
                cause: error.to_string(),
                asked,
            }),
        }
    }
}

impl System {
    fn error(&self, name: &str, error: &NetError) -> NameError {
        let (name, asked) = (name.to_owned(), self.asked.clone());
        if error.is_nx_domain() {
            NameError::NoName { name, asked }
        } else if error.is_no_records_found() {
            NameError::NoAddress { name, asked }
        } else {
            let cause = error.to_string();
            NameError::NoAnswer { name, cause, asked }
        }
    }

    fn no_address(&self, name: &str) -> NameError {
        NameError::NoAddress {
            name: name.to_owned(),
            asked: self.asked.clone(),
        }
    }
}

/// Returns the resolvers of the system, and how they are asked. Without a file that names any it is the host itself, as in
/// the system's own library.
fn system() -> (ResolverConfig, ResolverOpts) {
    read_system_conf().unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot read /etc/resolv.conf");
        let here = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
        (config, ResolverOpts::default())
    })
}

fn name_of(named: &Multiaddr) -> String {
    NamedAddress::of(named).map_or_else(|| named.to_string(), |named| named.name.into_owned())
}

/// Returns the items of both lists, one of each in turn.
fn in_turns(a: Vec<IpAddr>, b: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let n = a.len().max(b.len());
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    (0..n).flat_map(move |_| [a.next(), b.next()]).flatten()
}

/// The sockets of a lookup.
#[derive(Clone)]
struct MarkedSockets {
    marks: SocketMarks,
    plain: TokioRuntimeProvider,
}

type Soon<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for MarkedSockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.plain.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Soon<Self::Tcp> {
        let marks = self.marks;
        Box::pin(async move {
            let socket = match server {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            marks.apply_fwmark(&socket)?;
            let connected = timeout(limit.unwrap_or(ANSWER_LIMIT), socket.connect(server)).await;
            Ok(AsyncIoTokioAsStd(
                connected.map_err(|_elapsed| io::ErrorKind::TimedOut)??,
            ))
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Soon<Self::Udp> {
        let marks = self.marks;
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            marks.apply_fwmark(&socket)?;
            Ok(socket)
        })
    }
}
