mod hostile;
mod rustls_peer;

use std::sync::Mutex;

use futures::AsyncReadExt;
use rustls::CipherSuite;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::p2p::transport::{
    socket::{PathWatch, Socket},
    test_network::in_own_network,
    test_wire::{End, Wire},
};

#[test]
fn both_sides_learn_the_other_and_that_it_takes_streams_in_records() {
    let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (client, server) = (tls(&ours), tls(&theirs));

    let (connected, accepted) = handshake(|near| client.connect(near), |far| server.accept(far));

    let (seen_by_client, _) = connected.expect("connect");
    let (seen_by_server, _) = accepted.expect("accept");
    assert_eq!(seen_by_client.id, theirs.public().to_peer_id());
    assert_eq!(seen_by_server.id, ours.public().to_peer_id());
    assert!(seen_by_client.takes_record_streams && seen_by_server.takes_record_streams);
}

#[test]
fn a_peer_that_offers_plain_libp2p_gets_it() {
    for is_client in [true, false] {
        let (mut client, mut server) = (
            tls(&Keypair::generate_ed25519()),
            tls(&Keypair::generate_ed25519()),
        );
        match is_client {
            true => client = client.without_record_streams(),
            false => server = server.without_record_streams(),
        }

        let (connected, accepted) = handshake(|near| client.connect(near), |far| server.accept(far));

        let (seen_by_client, _) = connected.expect("connect");
        let (seen_by_server, _) = accepted.expect("accept");
        assert!(!seen_by_client.takes_record_streams && !seen_by_server.takes_record_streams);
    }
}

#[test]
fn the_cipher_is_that_of_the_cpu() {
    let client = tls(&Keypair::generate_ed25519());
    let server = tls(&Keypair::generate_ed25519());
    let connect = async |mut near: Socket| {
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let side = UnbufferedClientConnection::new(client.client, name).expect("a side");
        let suite = |session: &CommonState| session.negotiated_cipher_suite();
        let (_, suite) = handshake::complete(side, &mut near, suite)
            .await
            .expect("connect");
        suite.map(|suite| suite.suite())
    };

    let (suite, accepted) = handshake(connect, |far| server.accept(far));

    assert!(accepted.is_ok());
    assert_eq!(suite, Some(cipher_suites(has_aes())[0].suite()));
}

#[test]
fn aes_leads_only_where_the_cpu_has_it() {
    assert_eq!(
        cipher_suites(true)[0].suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(
        cipher_suites(false)[0].suite(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    );
}

#[test]
fn certificate_signed_by_another_identity_is_refused() {
    // The certificate of one identity with the private key of another certificate.
    let keypair = Keypair::generate_ed25519();
    let (certificate, _) = generate(&keypair, 1).expect("certificate");
    let (_, key) = generate(&keypair, 1).expect("another certificate");
    let mut impostor = tls(&keypair);
    let key = any_ecdsa_type(&key).expect("key");
    let resolver = OwnCertificate(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let mut config = ServerConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .with_client_cert_verifier(Arc::new(PeerCertificate { admits: None }))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    impostor.server = Arc::new(config);
    let client = tls(&Keypair::generate_ed25519());

    let (connected, _) = handshake(|near| client.connect(near), |far| impostor.accept(far));

    assert!(
        matches!(connected, Err(TlsError::Handshake(_))),
        "the proof of possession does not fit"
    );
}

#[test]
fn dialler_without_certificate_is_refused() {
    let server = tls(&Keypair::generate_ed25519());
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerCertificate { admits: None }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_secret_extraction = true;
    let mut anonymous = tls(&Keypair::generate_ed25519());
    anonymous.client = Arc::new(config);

    let (_, accepted) = handshake(|near| anonymous.connect(near), |far| server.accept(far));

    assert!(matches!(accepted, Err(TlsError::Handshake(_))));
}

#[test]
fn a_peer_that_is_not_admitted_hears_so() {
    let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let client = tls(&ours);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let admits = {
        let refused = Arc::clone(&refused);
        move |peer| {
            refused.lock().expect("the list").push(peer);
            false
        }
    };
    let server = Tls::new(&theirs, Arc::new(admits), 1).expect("server");
    let dial = async |near: Socket| {
        let (_, connection) = client.connect(near).await.expect("the dialler's part is done");
        TlsStream::new(connection).read(&mut [0; 1]).await
    };

    let (read, accepted) = handshake(dial, |far| server.accept(far));

    assert!(matches!(accepted, Err(TlsError::Handshake(error)) if is_refusal(&error)));
    assert!(is_refusal(&read.expect_err("an alert")));
    assert_eq!(*refused.lock().expect("the list"), [ours.public().to_peer_id()]);
}

fn tls(keypair: &Keypair) -> Tls {
    Tls::new(keypair, Arc::new(|_| true), 1).expect("a configuration")
}

fn handshake<A, B>(
    client: impl FnOnce(Socket) -> A + Send,
    server: impl FnOnce(Socket) -> B + Send,
) -> (A::Output, B::Output)
where
    A: Future<Output: Send>,
    B: Future<Output: Send>,
{
    in_own_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = listener.local_addr().expect("address");
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let watch = || PathWatch::new(address.ip(), Arc::default());
            let near = Socket::new(near.expect("connect"), watch()).expect("near");
            let far = Socket::new(far.expect("accept").0, watch()).expect("far");
            tokio::join!(client(near), server(far))
        })
    })
}

/// Returns both ends of a connection in memory, behind its handshake.
pub(in crate::p2p::transport) fn pair(wire: &Wire) -> [TlsConnection<End>; 2] {
    let (client, server) = (
        tls(&Keypair::generate_ed25519()),
        tls(&Keypair::generate_ed25519()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    let both = async { tokio::join!(client.connect(wire.end(0)), server.accept(wire.end(1))) };
    let (near, far) = runtime.block_on(both);
    [near.expect("connect").1, far.expect("accept").1]
}
