//! Our transports against those of stock libp2p.

use super::{
    stock::{Security, StockNode},
    support::{Setup, content, exchange, in_own_network},
};
use stream_router::p2p::{Keypair, NetworkEvent, TransportKind};

const LENGTH: usize = 8 * 1024 * 1024;

#[test]
fn we_dial_stock_over_tcp_and_tls() {
    in_own_network(|| we_dial(Security::TlsAndNoise, "/ip4/127.0.0.1/tcp/0", TransportKind::Tcp));
}

#[test]
fn we_dial_stock_over_tcp_and_noise_when_it_has_no_tls() {
    in_own_network(|| we_dial(Security::NoiseOnly, "/ip4/127.0.0.1/tcp/0", TransportKind::Tcp));
}

#[test]
fn we_dial_stock_over_quic() {
    in_own_network(|| {
        we_dial(
            Security::TlsAndNoise,
            "/ip4/127.0.0.1/udp/0/quic-v1",
            TransportKind::Quic,
        )
    });
}

#[test]
fn we_dial_stock_over_ipv6() {
    in_own_network(|| we_dial(Security::TlsAndNoise, "/ip6/::1/tcp/0", TransportKind::Tcp));
}

#[test]
fn stock_dials_us_over_tcp_and_tls() {
    in_own_network(|| stock_dials(Security::TlsAndNoise, "/ip4/127.0.0.1/tcp/0"));
}

#[test]
fn stock_without_tls_dials_us_over_tcp_and_noise() {
    in_own_network(|| stock_dials(Security::NoiseOnly, "/ip4/127.0.0.1/tcp/0"));
}

#[test]
fn stock_dials_us_over_quic() {
    in_own_network(|| stock_dials(Security::TlsAndNoise, "/ip4/127.0.0.1/udp/0/quic-v1"));
}

#[test]
fn stock_dials_us_over_ipv6() {
    in_own_network(|| stock_dials(Security::TlsAndNoise, "/ip6/::1/tcp/0"));
}

async fn we_dial(security: Security, listen: &str, expected: TransportKind) {
    let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut stock = StockNode::start(&theirs, security, listen, None, 0).await;
    let mut node = Setup::new(&ours)
        .peer(stock.id, std::slice::from_ref(&stock.address))
        .start();
    let (connection, transport) = node
        .event(|event| match event {
            NetworkEvent::Connected {
                connection,
                transport,
                ..
            } => Some((connection, transport)),
            _ => None,
        })
        .await;
    assert_eq!(transport, expected);

    let near = node.handle.open_stream(connection).await.expect("open");
    let far = stock.stream().await;
    let (to_far, to_near) = (content(1, LENGTH), content(2, LENGTH));
    let (at_near, at_far) = tokio::join!(exchange(near, to_far.clone()), exchange(far, to_near.clone()));
    assert!(at_near == to_near && at_far == to_far);

    let pinged = node.event(|event| match event {
        NetworkEvent::Rtt { connection, .. } => Some(connection),
        _ => None,
    });
    assert_eq!(pinged.await, connection);
    node.stop().await;
}

async fn stock_dials(security: Security, listen: &str) {
    let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let their_id = theirs.public().to_peer_id();
    let mut node = Setup::new(&ours).listen(listen).peer(their_id, &[]).start();
    let address = node.listening().await;
    let mut stock = StockNode::start(&theirs, security, listen, Some(address), 1).await;

    let far = stock.stream().await;
    let arrival = node.arrival().await;
    assert_eq!(arrival.peer, their_id);
    let (to_far, to_near) = (content(1, LENGTH), content(2, LENGTH));
    let (at_near, at_far) = tokio::join!(
        exchange(arrival.stream, to_far.clone()),
        exchange(far, to_near.clone())
    );
    assert!(at_near == to_near && at_far == to_far);
    node.stop().await;
}
