//! Checks the tunnel's own addresses against those that the host has elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;

use super::finding::Finding;
use super::input::CheckInput;

/// An address of an interface, with the network that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostNetwork {
    interface: String,
    network: IpNet,
}

/// Checks every address of the device.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    const CHECK: &str = "address";
    let device = input.config.device();
    let own = device.addresses();
    match host_networks(device.name()) {
        Ok(others) => own.iter().map(|own| judge(*own, &others)).collect(),
        Err(errno) => vec![Finding::unknown(
            CHECK,
            format!("the kernel does not say: {errno}"),
        )],
    }
}

/// Returns the networks of all interfaces but the device.
fn host_networks(device: &str) -> Result<Vec<HostNetwork>, Errno> {
    let others = getifaddrs()?.filter(|one| one.interface_name != device);
    Ok(others.filter_map(|one| network_of(&one)).collect())
}

fn network_of(address: &InterfaceAddress) -> Option<HostNetwork> {
    let ip = |stored: &SockaddrStorage| -> Option<IpAddr> {
        let v4 = stored.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
        v4.or_else(|| stored.as_sockaddr_in6().map(|own| own.ip().into()))
    };
    let own = ip(address.address.as_ref()?)?;
    let network = IpNet::with_netmask(own, ip(address.netmask.as_ref()?)?).ok()?;
    // Every interface has one of these.
    let is_link_local = matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
    (!own.is_loopback() && !is_link_local).then(|| HostNetwork {
        interface: address.interface_name.clone(),
        network,
    })
}

fn judge(own: IpNet, others: &[HostNetwork]) -> Finding {
    const CHECK: &str = "address";
    let same = others.iter().find(|other| other.network.addr() == own.addr());
    let covered = others.iter().find(|other| own.contains(&other.network.trunc()));
    let around = others.iter().find(|other| other.network.contains(&own));
    let finding = match (same, covered, around) {
        (Some(HostNetwork { interface, network }), ..) => Finding::problem(
            CHECK,
            format!("{interface} has this address too: what is sent to it never reaches the tunnel"),
        )
        .fix(format!("ip address delete {network} dev {interface}")),
        (None, Some(HostNetwork { interface, network }), _) => Finding::problem(
            CHECK,
            format!(
                "its network holds {}, the network of {interface}: hosts there are looked for in the tunnel, or peers \
                 there; give the tunnel a network of its own",
                network.trunc()
            ),
        ),
        (None, None, Some(HostNetwork { interface, network })) => Finding::warning(
            CHECK,
            format!(
                "its network lies inside of {}, the network of {interface}: hosts there with such addresses are \
                 looked for in the tunnel; give the tunnel a network of its own",
                network.trunc()
            ),
        ),
        (None, None, None) => Finding::ok(CHECK, "no other interface has it, or a network around it"),
    };
    finding.about(own.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn an_address_is_judged_by_the_networks_around_it() {
        let others: Vec<_> = ["192.0.2.1/24", "10.0.0.1/8", "2001:db8::1/64"]
            .map(|network| HostNetwork {
                interface: "eth0".to_owned(),
                network: network.parse().unwrap(),
            })
            .into();
        for (own, verdict) in [
            ("10.42.0.1/24", Verdict::Warning),
            ("10.0.0.1/32", Verdict::Problem),
            ("192.0.2.7/24", Verdict::Problem),
            ("192.0.0.7/16", Verdict::Problem),
            ("192.0.2.7/32", Verdict::Warning),
            ("172.16.0.1/12", Verdict::Ok),
            ("2001:db8::2/64", Verdict::Problem),
            ("2001:db8:1::2/64", Verdict::Ok),
        ] {
            assert_eq!(judge(own.parse().unwrap(), &others).verdict, verdict, "{own}");
        }
        assert_eq!(
            judge("10.0.0.1/32".parse().unwrap(), &others).fix.as_deref(),
            Some("ip address delete 10.0.0.1/8 dev eth0")
        );
    }

    #[test]
    fn loopback_does_not_count() {
        assert!(
            host_networks("none")
                .unwrap()
                .iter()
                .all(|one| one.interface != "lo")
        );
    }
}
