//! Link-local addresses, which are reached by the interface that they name.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

use stream_router::p2p::Keypair;

use super::support::{Setup, in_own_network, until, with_netlink};

const LOOPBACK: u32 = 1;

#[test]
fn nodes_listen_on_and_dial_link_local_addresses_over_both_transports() {
    for rest in ["tcp/0", "udp/0/quic-v1"] {
        in_own_network(|| async move {
            let link_local: Ipv6Addr = "fe80::7".parse().expect("an address");
            with_netlink(async |netlink| {
                let added = netlink.address().add(LOOPBACK, link_local.into(), 64);
                added.execute().await.expect("an address of loopback");
            })
            .await;
            // It is of use once the kernel has found that nobody else has it.
            let at = SocketAddrV6::new(link_local, 0, 0, LOOPBACK);
            until("the address is there", || UdpSocket::bind(at).is_ok()).await;
            let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let mut far = Setup::new(&far)
                .listen(&format!("/ip6zone/lo/ip6/fe80::7/{rest}"))
                .peer(near.public().to_peer_id(), &[])
                .start();
            let at = far.listening().await;
            assert!(at.to_string().starts_with("/ip6zone/lo/ip6/fe80::7/"), "{at}");

            let mut near = Setup::new(&near).peer(far.id, &[at]).start();

            assert_eq!(near.connected().await.0, far.id);
            assert_eq!(far.connected().await.0, near.id);
            let from = far.handle.snapshot().peers[0].connections[0].address.to_string();
            assert!(from.starts_with("/ip6zone/lo/ip6/fe80::7/"), "{from}");
            near.stop().await;
            far.stop().await;
        });
    }
}
