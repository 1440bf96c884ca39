//! The addresses of a peer that are not configured: seen on the local network, or announced by the peer itself.

use std::time::SystemTime;

use libp2p::Multiaddr;

use super::{
    address::{TransportKind, transport_kind},
    announcement::{Announcement, MAX_ANNOUNCED_ADDRESSES},
};

/// Most addresses of one peer that are remembered from the local network, where every host can claim any number.
const MAX_LOCAL: usize = 8;

/// How an address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The address was found by mDNS, on the local network.
    Mdns,
    /// The address was found in the peer's record in the DHT.
    Dht,
}

/// An address of a peer that was found and not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundAddress {
    /// The address, without the peer's id.
    pub address: Multiaddr,
    /// How the address was found.
    pub by: FoundBy,
}

/// The found addresses of one peer. None of them can be trusted: the node that answers at an address has to prove that it
/// is the peer.
#[derive(Debug, Default)]
pub(super) struct FoundAddresses {
    local: Vec<Multiaddr>,
    announced: Vec<Multiaddr>,
    announced_until: Option<SystemTime>,
}

impl FoundAddresses {
    /// Records that the peer was seen at an address. Returns false if that is known already, or too many addresses are.
    pub(super) fn handle_seen(&mut self, address: Multiaddr) -> bool {
        let is_new = self.local.len() < MAX_LOCAL && !self.local.contains(&address);
        if is_new {
            self.local.push(address);
        }
        is_new
    }

    /// Records that the peer was not seen at an address for long.
    pub(super) fn handle_unseen(&mut self, address: &Multiaddr) {
        self.local.retain(|known| known != address);
    }

    /// Forgets what was seen on the local network.
    pub(super) fn forget_local(&mut self) {
        self.local.clear();
    }

    /// Records what the peer says of itself. Of the addresses, those that are `usable` replace the ones announced before.
    pub(super) fn handle_announced(
        &mut self,
        announcement: &Announcement,
        usable: impl Fn(&Multiaddr) -> bool,
    ) {
        let addresses = announcement.addresses.iter().filter(|address| usable(address));
        self.announced = addresses.take(MAX_ANNOUNCED_ADDRESSES).cloned().collect();
        self.announced_until = Some(announcement.expires);
    }

    /// Forgets what was announced if it has expired. Says whether it has.
    pub(super) fn expire(&mut self, now: SystemTime) -> bool {
        let expired = self.announced_until.is_some_and(|until| until <= now);
        if expired {
            self.announced.clear();
            self.announced_until = None;
        }
        expired
    }

    /// Returns every address once: first those of the local network, then the announced ones, and in both parts those of
    /// the transport `prefer` first.
    pub(super) fn all(&self, prefer: TransportKind) -> Vec<FoundAddress> {
        let of = |by: FoundBy| {
            move |address: &Multiaddr| FoundAddress {
                address: address.clone(),
                by,
            }
        };
        let elsewhere = self
            .announced
            .iter()
            .filter(|address| !self.local.contains(address));
        let local = self.local.iter().map(of(FoundBy::Mdns));
        let mut all: Vec<_> = local.chain(elsewhere.map(of(FoundBy::Dht))).collect();
        all.sort_by_key(|found| (found.by == FoundBy::Dht, transport_kind(&found.address) != prefer));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use libp2p::PeerId;

    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("an address")
    }

    fn announcement(ports: &[u16], expires: SystemTime) -> Announcement {
        Announcement {
            peer: PeerId::random(),
            sequence: 1,
            expires,
            addresses: ports.iter().map(|port| address(*port)).collect(),
            networks: Vec::new(),
        }
    }

    fn ports(found: &FoundAddresses) -> Vec<String> {
        let all = found.all(TransportKind::Tcp).into_iter();
        all.map(|found| format!("{:?} {}", found.by, found.address))
            .collect()
    }

    #[test]
    fn the_local_network_comes_first_and_no_address_twice() {
        let mut found = FoundAddresses::default();
        found.handle_announced(&announcement(&[1, 2], UNIX_EPOCH), |_| true);

        assert!(found.handle_seen(address(2)));
        assert!(!found.handle_seen(address(2)));

        assert_eq!(
            ports(&found),
            ["Mdns /ip4/192.0.2.1/tcp/2", "Dht /ip4/192.0.2.1/tcp/1"]
        );
        found.handle_unseen(&address(2));
        assert_eq!(
            ports(&found),
            ["Dht /ip4/192.0.2.1/tcp/1", "Dht /ip4/192.0.2.1/tcp/2"]
        );
    }

    #[test]
    fn the_preferred_transport_comes_first_near_and_far() {
        let mut found = FoundAddresses::default();
        let quic = |port: u16| -> Multiaddr {
            let text = format!("/ip4/192.0.2.1/udp/{port}/quic-v1");
            text.parse().expect("an address")
        };
        let mut said = announcement(&[2], UNIX_EPOCH);
        said.addresses.push(quic(2));
        found.handle_announced(&said, |_| true);
        found.handle_seen(quic(1));
        found.handle_seen(address(1));

        let order = |prefer| {
            let all = found.all(prefer).into_iter();
            all.map(|found| found.address).collect::<Vec<_>>()
        };

        let tcp_first = [address(1), quic(1), address(2), quic(2)];
        assert_eq!(order(TransportKind::Tcp), tcp_first);
        let quic_first = [quic(1), address(1), quic(2), address(2)];
        assert_eq!(order(TransportKind::Quic), quic_first);
    }

    #[test]
    fn what_was_announced_goes_when_it_expires_or_something_newer_is_said() {
        let mut found = FoundAddresses::default();
        let until = UNIX_EPOCH + Duration::from_secs(10);
        found.handle_announced(&announcement(&[1, 2], UNIX_EPOCH), |_| true);
        found.handle_announced(&announcement(&[3, 4], until), |at| *at == address(3));
        assert_eq!(ports(&found), ["Dht /ip4/192.0.2.1/tcp/3"]);

        assert!(!found.expire(until - Duration::from_secs(1)));
        assert!(found.expire(until));

        assert_eq!(found.all(TransportKind::Tcp), []);
        assert!(!found.expire(until));
    }

    #[test]
    fn a_crowd_of_addresses_is_not_remembered() {
        let mut found = FoundAddresses::default();

        let n_new = (0..1000).filter(|port| found.handle_seen(address(*port))).count();

        assert_eq!(
            (n_new, found.all(TransportKind::Tcp).len()),
            (MAX_LOCAL, MAX_LOCAL)
        );
        found.forget_local();
        assert_eq!(found.all(TransportKind::Tcp), []);
    }
}
