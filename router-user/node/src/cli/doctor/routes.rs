//! Checks the routes to the peers: each address that is dialled has one, and not through the tunnel itself.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{setsockopt, sockopt};

use super::finding::Finding;
use super::input::CheckInput;

/// An address that no host has (RFC 5737): its route is the default route.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const ANY_PORT: u16 = 9;

/// The route that packets to an address take.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostRoute {
    source: IpAddr,
    /// The interface that has the source address.
    interface: Option<String>,
}

/// Checks every address. Returns also the interfaces through which the peers are reached, or that of the default
/// route for a node that dials nobody.
pub(super) fn check(input: &CheckInput) -> (Vec<Finding>, BTreeSet<String>) {
    let device = input.config.device().name();
    let mark = input.mark();
    let mut underlays = BTreeSet::new();
    let mut findings = Vec::new();
    for address in input.config.peers().iter().flat_map(|peer| peer.addresses()) {
        let Some(ip) = ip_of(address) else { continue };
        let route = route_to(ip, mark);
        if let Ok(HostRoute {
            interface: Some(interface),
            ..
        }) = &route
            && interface != device
        {
            underlays.insert(interface.clone());
        }
        findings.push(judge(&address.to_string(), ip, route, device));
    }
    if findings.is_empty()
        && let Ok(route) = route_to(ANYWHERE, mark)
    {
        underlays.extend(route.interface.filter(|interface| interface != device));
    }
    (findings, underlays)
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Returns the interface through which packets to `ip` leave, if it can be told.
pub(super) fn interface_to(ip: IpAddr, input: &CheckInput) -> Option<String> {
    route_to(ip, input.mark()).ok()?.interface
}

/// Looks the route to `ip` up by connecting a datagram socket, which sends nothing.
fn route_to(ip: IpAddr, mark: Option<NonZeroU32>) -> io::Result<HostRoute> {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark.get())?;
    }
    socket.connect(SocketAddr::new(ip, ANY_PORT))?;
    let source = socket.local_addr()?.ip();
    Ok(HostRoute {
        interface: interface_with(source),
        source,
    })
}

fn interface_with(address: IpAddr) -> Option<String> {
    getifaddrs().ok()?.find_map(|interface| {
        let own = interface.address?;
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
        let own = v4.or_else(|| own.as_sockaddr_in6().map(|own| own.ip().into()));
        (own == Some(address)).then_some(interface.interface_name)
    })
}

fn judge(address: &str, ip: IpAddr, route: io::Result<HostRoute>, device: &str) -> Finding {
    const CHECK: &str = "peer_route";
    let finding = match route {
        Ok(HostRoute {
            interface: Some(interface),
            ..
        }) if interface == device => Finding::problem(
            CHECK,
            format!("leads through {device}, the tunnel itself; the peer's address needs a route outside it"),
        )
        .fix(format!("ip route add {ip} via GATEWAY")),
        Ok(HostRoute { source, interface }) => Finding::ok(
            CHECK,
            format!(
                "through {} from {source}",
                interface.unwrap_or_else(|| "an interface".to_owned())
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::unknown(
            CHECK,
            "no permission to look with the node's mark; run doctor as root",
        ),
        Err(error) => {
            let no_route = [
                Errno::ENETUNREACH,
                Errno::EHOSTUNREACH,
                Errno::EADDRNOTAVAIL,
                Errno::EAFNOSUPPORT,
            ];
            let errno = error.raw_os_error().map(Errno::from_raw);
            if errno.is_some_and(|errno| no_route.contains(&errno)) {
                Finding::problem(CHECK, "no route to it").fix(format!("ip route add {ip} via GATEWAY"))
            } else {
                Finding::problem(CHECK, format!("the kernel refuses the route there: {error}"))
                    .fix(format!("ip route get {ip}"))
            }
        }
    };
    finding.about(address)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_way_is_judged_by_where_it_leads() {
        let ip = IpAddr::from([192, 0, 2, 2]);
        let through = |name: &str| {
            Ok(HostRoute {
                source: [192, 0, 2, 1].into(),
                interface: Some(name.to_owned()),
            })
        };
        let verdict = |route| judge("/ip4/192.0.2.2/tcp/4001", ip, route, "sr0").verdict;

        assert_eq!(verdict(through("eth0")), Verdict::Ok);
        assert_eq!(verdict(through("sr0")), Verdict::Problem);
        assert_eq!(
            verdict(Err(io::Error::from_raw_os_error(Errno::ENETUNREACH as i32))),
            Verdict::Problem
        );
    }

    #[test]
    fn the_own_host_is_reached_through_loopback() {
        let route = route_to(Ipv4Addr::LOCALHOST.into(), None).unwrap();
        assert_eq!(route.interface.as_deref(), Some("lo"));
    }
}
