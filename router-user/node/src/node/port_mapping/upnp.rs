//! UPnP IGD: a search by SSDP, and requests over HTTP.

use std::fmt::Display;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::time::timeout;

use super::terms::{Failure, LIFETIME, Outside};
use super::uplink::{Port, Transport, Uplink};

/// Where gateways are asked to answer; to the gateway alone first, as its port answers too with most.
const SSDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);

/// How long a search goes on, with the descriptions that are fetched in it.
const SEARCH_PATIENCE: Duration = Duration::from_secs(2);

/// How long a request may take: small routers think.
const PATIENCE: Duration = Duration::from_secs(4);

/// What routers show to their owners.
const DESCRIPTION: &str = "stream-router";

/// Most characters that are kept of what a gateway says of an error.
const MAX_WORDS: usize = 120;

/// A gateway that speaks UPnP.
#[derive(Clone, Debug)]
pub(super) struct Upnp {
    gateway: Arc<Gateway<Tokio>>,
    outside: Ipv4Addr,
}

impl Upnp {
    /// Looks for the gateway, and nobody else.
    pub(super) async fn find(uplink: &Uplink) -> Result<Self, Failure> {
        let to_gateway = SocketAddrV4::new(uplink.gateway, SSDP.port());
        let gateway = match search(uplink, to_gateway).await {
            Ok(gateway) => gateway,
            Err(_) => search(uplink, SSDP).await?,
        };
        let mut upnp = Self {
            gateway: Arc::new(gateway),
            outside: Ipv4Addr::UNSPECIFIED,
        };
        upnp.outside = upnp.ask_outside().await?;
        Ok(upnp)
    }

    /// Returns the gateway's address outside.
    pub(super) fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Asks for a port, at the wanted one outside if nobody else has that. Old gateways know no time after which they forget.
    pub(super) async fn map(
        &self,
        uplink: &Uplink,
        port: Port,
        wanted: NonZeroU16,
    ) -> Result<Outside, Failure> {
        let inside = SocketAddr::new(uplink.source.into(), port.number.get());
        let mut lifetime = Some(LIFETIME);
        let mut added = self.add(port, inside, wanted, lifetime).await?;
        if let Err(AddPortError::OnlyPermanentLeasesSupported) = added {
            lifetime = None;
            added = self.add(port, inside, wanted, lifetime).await?;
        }
        let number = match added {
            Ok(()) => wanted,
            Err(AddPortError::PortInUse) => self.add_anywhere(port, inside, lifetime).await?,
            Err(error) => return Err(refused(&error)),
        };
        Ok(Outside {
            ip: self.outside,
            port: number,
            expires: lifetime.map(|lifetime| Instant::now() + lifetime),
        })
    }

    pub(super) async fn remove(self, port: Port, outside: NonZeroU16) -> Result<(), String> {
        let removed = self.gateway.remove_port(protocol(port), outside.get());
        match timeout(PATIENCE, removed).await {
            Ok(removed) => removed.map_err(|error| words(&error)),
            Err(_elapsed) => Err("no answer".to_owned()),
        }
    }

    async fn ask_outside(&self) -> Result<Ipv4Addr, Failure> {
        let asked = within(self.gateway.get_external_ip()).await?;
        match asked.map_err(|error| refused(&error))? {
            IpAddr::V4(ip) => Ok(ip),
            IpAddr::V6(ip) => Err(Failure::Silent(format!("its own address outside is {ip}"))),
        }
    }

    async fn add(
        &self,
        port: Port,
        inside: SocketAddr,
        outside: NonZeroU16,
        lifetime: Option<Duration>,
    ) -> Result<Result<(), AddPortError>, Failure> {
        let (protocol, outside, lease) = (protocol(port), outside.get(), lease(lifetime));
        let added = self
            .gateway
            .add_port(protocol, outside, inside, lease, DESCRIPTION);
        within(added).await
    }

    async fn add_anywhere(
        &self,
        port: Port,
        inside: SocketAddr,
        lifetime: Option<Duration>,
    ) -> Result<NonZeroU16, Failure> {
        let added = self
            .gateway
            .add_any_port(protocol(port), inside, lease(lifetime), DESCRIPTION);
        let number = within(added).await?.map_err(|error| refused(&error))?;
        NonZeroU16::new(number).ok_or_else(|| Failure::Refused("it gives port 0".to_owned()))
    }
}

/// Returns a time as UPnP says it, in which none is for ever.
fn lease(lifetime: Option<Duration>) -> u32 {
    lifetime.map_or(0, |lifetime| lifetime.as_secs() as u32)
}

/// Looks for a gateway from the host's address before it, and so by that interface, also by multicast (`ip_route_output`
/// of the kernel). Descriptions are taken only from who has answered, and the answer only from the gateway.
async fn search(uplink: &Uplink, to: SocketAddrV4) -> Result<Gateway<Tokio>, Failure> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(uplink.source.into(), 0);
    options.broadcast_address = to.into();
    options.timeout = Some(SEARCH_PATIENCE);
    options.single_search_timeout = Some(SEARCH_PATIENCE);
    let found = search_gateway(options).await;
    let found = found.map_err(|error| Failure::Silent(words(&error)))?;
    match found.addr.ip() == IpAddr::from(uplink.gateway) {
        true => Ok(found),
        false => Err(Failure::Silent(format!(
            "{}, which is not the gateway, answers",
            found.addr.ip()
        ))),
    }
}

async fn within<T>(asked: impl Future<Output = T>) -> Result<T, Failure> {
    let answer = timeout(PATIENCE, asked).await;
    answer.map_err(|_elapsed| Failure::Silent("no answer".to_owned()))
}

fn protocol(port: Port) -> PortMappingProtocol {
    match port.transport {
        Transport::Tcp => PortMappingProtocol::TCP,
        Transport::Quic => PortMappingProtocol::UDP,
    }
}

/// A gateway that answers something else than it should is taken for one that refuses: it speaks the protocol.
fn refused(error: &impl Display) -> Failure {
    Failure::Refused(words(error))
}

/// Returns the beginning of what an error says, in which a gateway may have said anything.
fn words(error: &impl Display) -> String {
    let text = error.to_string();
    let shown = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    shown.take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_says_of_an_error_is_short_and_of_one_line() {
        let said = words(&format!("no\n\u{1b}[31m{}", "x".repeat(5000)));
        assert!(said.starts_with("no  [31mxx"), "{said}");
        assert_eq!(said.chars().count(), MAX_WORDS);
    }
}
