//! PCP (RFC 6887) and NAT-PMP (RFC 6886): a datagram to the gateway, and one from it. Sockets are connected, and take nothing
//! of others.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crab_nat::pcp::{BaseMapRequest, Nonce};
use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};

use super::terms::{Failure, LIFETIME, Outside};
use super::uplink::{Port, Transport, Uplink};

/// A gateway is one hop away: 1.75 s in all, of which a lost datagram costs the first quarter of a second.
const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

/// Asks for a port by PCP.
pub(super) async fn map_by_pcp(
    uplink: &Uplink,
    nonce: Nonce,
    port: Port,
    wanted: NonZeroU16,
) -> Result<(PortMapping, Outside), Failure> {
    let Uplink { gateway, source, .. } = *uplink;
    let request = BaseMapRequest::new(gateway.into(), source.into(), protocol(port), port.number);
    let asked = pcp::port_mapping(request, Some(nonce), None, options(wanted));
    let mapping = asked.await.map_err(of_pcp)?;
    let outside = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    match outside {
        IpAddr::V4(outside) => Ok(mapped(mapping, outside)),
        IpAddr::V6(outside) => Err(Failure::Silent(format!("its own address outside is {outside}"))),
    }
}

/// Asks by NAT-PMP for the gateway's address outside.
pub(super) async fn outside(uplink: &Uplink) -> Result<Ipv4Addr, Failure> {
    let asked = natpmp::external_address(uplink.gateway.into(), Some(PATIENCE));
    asked.await.map_err(of_nat_pmp)
}

/// Asks for a port by NAT-PMP, of a gateway with this address outside.
pub(super) async fn map_by_nat_pmp(
    uplink: &Uplink,
    port: Port,
    wanted: NonZeroU16,
    outside: Ipv4Addr,
) -> Result<(PortMapping, Outside), Failure> {
    let gateway = uplink.gateway.into();
    let asked = natpmp::port_mapping(gateway, protocol(port), port.number, options(wanted));
    Ok(mapped(asked.await.map_err(of_nat_pmp)?, outside))
}

fn mapped(mapping: PortMapping, ip: Ipv4Addr) -> (PortMapping, Outside) {
    let lifetime = Duration::from_secs(mapping.lifetime().into()).min(LIFETIME);
    let outside = Outside {
        ip,
        port: mapping.external_port(),
        expires: Some(Instant::now() + lifetime),
    };
    (mapping, outside)
}

fn protocol(port: Port) -> InternetProtocol {
    match port.transport {
        Transport::Tcp => InternetProtocol::Tcp,
        Transport::Quic => InternetProtocol::Udp,
    }
}

fn options(wanted: NonZeroU16) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(wanted),
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: Some(PATIENCE),
    }
}

fn of_pcp(failure: pcp::Failure) -> Failure {
    use pcp::Failure as Pcp;
    match failure {
        Pcp::Timeout => Failure::Silent("no answer".to_owned()),
        Pcp::Socket(error) => Failure::Silent(error.to_string()),
        Pcp::UnsupportedVersion(_) => Failure::Silent("it knows only NAT-PMP".to_owned()),
        Pcp::Nonce
        | Pcp::InvalidResponse(_)
        | Pcp::MalformedRequest
        | Pcp::UnsupportedOpcode
        | Pcp::UnsupportedOption
        | Pcp::MalformedOption => Failure::Silent(failure.to_string()),
        Pcp::NotAuthorized(_)
        | Pcp::NetworkFailure(_)
        | Pcp::NoResources(_)
        | Pcp::UnsupportedProtocol
        | Pcp::UserExceededQuota(_)
        | Pcp::CannotProvideExternal(_)
        | Pcp::AddressMismatch
        | Pcp::ExcessiveRemotePeers => Failure::Refused(failure.to_string()),
    }
}

fn of_nat_pmp(failure: natpmp::Failure) -> Failure {
    use natpmp::Failure as NatPmp;
    match failure {
        NatPmp::Timeout => Failure::Silent("no answer".to_owned()),
        NatPmp::Socket(error) => Failure::Silent(error.to_string()),
        NatPmp::InvalidResponse(_) | NatPmp::UnsupportedVersion(_) | NatPmp::UnsupportedOpcode => {
            Failure::Silent(failure.to_string())
        }
        NatPmp::NotAuthorized | NatPmp::NetworkFailure | NatPmp::OutOfResources => {
            Failure::Refused(failure.to_string())
        }
    }
}
