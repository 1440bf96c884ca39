//! Checks the addresses to listen on: each is free, or served by the running node.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;

/// An address to listen on, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenAddress {
    pub(super) is_tcp: bool,
    pub(super) at: SocketAddr,
}

impl ListenAddress {
    /// Reads a multiaddress of the configuration.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let mut zone = 0;
        let mut part = parts.next()?;
        if let Protocol::Ip6zone(interface) = &part {
            zone = if_nametoindex(interface.as_ref()).ok()?;
            part = parts.next()?;
        }
        let ip: IpAddr = match part {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        let (is_tcp, port) = match parts.next()? {
            Protocol::Tcp(port) => (true, port),
            Protocol::Udp(port) => (false, port),
            _ => return None,
        };
        Some(Self {
            is_tcp,
            at: match ip {
                IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, zone).into(),
                v4 @ IpAddr::V4(_) => SocketAddr::new(v4, port),
            },
        })
    }

    /// Returns the protocol's name.
    pub(super) fn protocol(self) -> &'static str {
        if self.is_tcp { "tcp" } else { "udp" }
    }

    /// Binds the address for a moment.
    fn try_bind(self) -> io::Result<()> {
        let family = match self.at {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let kind = match self.is_tcp {
            true => SockType::Stream,
            false => SockType::Datagram,
        };
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        if self.at.is_ipv6() {
            // As a node does: another program may have the port over IPv4.
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        if self.is_tcp {
            // Connections of a node that has just ended may linger.
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(self.at))?;
        if self.is_tcp {
            listen(&socket, Backlog::new(1)?)?;
        }
        Ok(())
    }
}

/// Checks every address of the configuration.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let served: Vec<_> = input
        .running
        .status()
        .into_iter()
        .flat_map(|status| &status.listen)
        .filter_map(|address| ListenAddress::of(&address.parse().ok()?))
        .collect();
    let mut findings = Vec::new();
    for address in input.config.node().listen() {
        let Some(listen) = ListenAddress::of(address) else {
            continue;
        };
        let is_served = served
            .iter()
            .any(|one| one.is_tcp == listen.is_tcp && one.at.port() == listen.at.port());
        let finding = if is_served {
            Finding::ok("listen", "served by the running node")
        } else {
            judge(listen, listen.try_bind(), &input.running)
        };
        findings.push(finding.about(address.to_string()));
    }
    findings
}

fn judge(listen: ListenAddress, bound: io::Result<()>, running: &RunningNode) -> Finding {
    const CHECK: &str = "listen";
    let Err(error) = bound else {
        return Finding::ok(CHECK, "free");
    };
    let flags = if listen.is_tcp { "-ltnp" } else { "-lunp" };
    let who = format!("ss {flags} 'sport = :{}'", listen.at.port());
    match error.kind() {
        io::ErrorKind::AddrInUse if matches!(running, RunningNode::Unknown) => Finding::unknown(
            CHECK,
            "taken; whether by the node cannot be told, as it may not be asked",
        )
        .fix(who),
        io::ErrorKind::AddrInUse => Finding::problem(CHECK, "taken by another program").fix(who),
        io::ErrorKind::AddrNotAvailable => {
            Finding::problem(CHECK, format!("{} is no address of this host", listen.at.ip()))
                .fix("ip address show")
        }
        io::ErrorKind::PermissionDenied => {
            Finding::problem(CHECK, "no permission for a port so low").fix(format!(
                "sysctl -w net.ipv4.ip_unprivileged_port_start={}",
                listen.at.port()
            ))
        }
        _ => Finding::problem(CHECK, format!("cannot listen: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::super::finding::Verdict;
    use super::*;

    fn listen_at(address: &str) -> ListenAddress {
        ListenAddress::of(&address.parse().unwrap()).unwrap()
    }

    #[test]
    fn an_address_is_taken_apart() {
        let quic = listen_at("/ip6/::/udp/4001/quic-v1");
        assert_eq!(
            (quic.protocol(), quic.at.to_string()),
            ("udp", "[::]:4001".to_owned())
        );
        assert_eq!(listen_at("/ip4/127.0.0.1/tcp/80").protocol(), "tcp");
    }

    #[test]
    fn a_port_that_is_taken_is_told_from_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let listen = listen_at(&format!("/ip4/127.0.0.1/tcp/{port}"));

        let finding = judge(listen, listen.try_bind(), &RunningNode::No);

        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(finding.fix, Some(format!("ss -ltnp 'sport = :{port}'")));
        let unsure = judge(listen, listen.try_bind(), &RunningNode::Unknown);
        assert_eq!(unsure.verdict, Verdict::Unknown);
        drop(taken);
        assert_eq!(
            judge(listen, listen.try_bind(), &RunningNode::No).verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn a_program_on_the_port_over_ipv4_alone_leaves_it_free_over_ipv6() {
        let (tcp, udp) = (
            TcpListener::bind("0.0.0.0:0").unwrap(),
            UdpSocket::bind("0.0.0.0:0").unwrap(),
        );
        let tcp_port = tcp.local_addr().unwrap().port();
        let udp_port = udp.local_addr().unwrap().port();
        let verdict = |address: &str| {
            let listen = listen_at(address);
            judge(listen, listen.try_bind(), &RunningNode::No).verdict
        };

        assert_eq!(verdict(&format!("/ip4/0.0.0.0/tcp/{tcp_port}")), Verdict::Problem);
        assert_eq!(
            verdict(&format!("/ip4/0.0.0.0/udp/{udp_port}/quic-v1")),
            Verdict::Problem
        );
        assert_eq!(verdict(&format!("/ip6/::/tcp/{tcp_port}")), Verdict::Ok);
        assert_eq!(verdict(&format!("/ip6/::/udp/{udp_port}/quic-v1")), Verdict::Ok);
    }

    #[test]
    fn an_address_of_another_host_is_a_problem() {
        let other = listen_at("/ip4/203.0.113.1/udp/4001/quic-v1");
        assert_eq!(
            judge(other, other.try_bind(), &RunningNode::No).detail,
            "203.0.113.1 is no address of this host"
        );
    }
}
