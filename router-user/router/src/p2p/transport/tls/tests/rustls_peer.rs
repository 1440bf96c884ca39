//! Our records against those of rustls, in both roles.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use rustls::{ClientConnection, Connection, ServerConnection};

use super::*;
use crate::p2p::transport::tls::record::MAX_RECORD;

/// Numbers that look random, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

/// What goes each way, and is taken in pieces of any size.
struct Pieces {
    to_ours: VecDeque<u8>,
    to_rustls: VecDeque<u8>,
    numbers: Numbers,
    has_ended: bool,
}

#[derive(Clone)]
struct OurEnd(Arc<Mutex<Pieces>>);

impl AsyncRead for OurEnd {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pieces = self.0.lock().expect("not poisoned");
        if pieces.to_ours.is_empty() {
            return match pieces.has_ended {
                true => Poll::Ready(Ok(0)),
                false => Poll::Pending,
            };
        }
        let most = pieces.to_ours.len().min(target.len());
        let n = 1 + pieces.numbers.below(most);
        Poll::Ready(pieces.to_ours.read(&mut target[..n]))
    }
}

impl AsyncWrite for OurEnd {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pieces = self.0.lock().expect("not poisoned");
        let n = 1 + pieces.numbers.below(bytes.len());
        pieces.to_rustls.extend(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A peer that is rustls.
struct RustlsPeer {
    connection: Connection,
    received: Vec<u8>,
}

impl RustlsPeer {
    fn turn(&mut self, end: &OurEnd) {
        let mut pieces = end.0.lock().expect("not poisoned");
        while !pieces.to_rustls.is_empty() {
            let n = 1 + pieces.numbers.below(20_000);
            let n = self
                .connection
                .read_tls(&mut (&mut pieces.to_rustls).take(n as u64));
            n.expect("a read from memory");
            self.connection
                .process_new_packets()
                .expect("our records are right");
            if let Err(error) = self.connection.reader().read_to_end(&mut self.received) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            }
        }
        while self.connection.wants_write() {
            self.connection
                .write_tls(&mut pieces.to_ours)
                .expect("a write to memory");
        }
    }
}

fn side_of_suite(
    suite: SupportedCipherSuite,
    is_dialler: bool,
    seed: u64,
) -> (TlsConnection<OurEnd>, OurEnd, RustlsPeer) {
    let end = OurEnd(Arc::new(Mutex::new(Pieces {
        to_ours: VecDeque::new(),
        to_rustls: VecDeque::new(),
        numbers: Numbers(seed),
        has_ended: false,
    })));
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..default_provider()
    });
    let own = |keypair| OwnCertificate::new(keypair, 1).expect("a certificate");
    let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let client = |keypair| {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerCertificate { admits: None }))
            .with_client_cert_resolver(own(keypair));
        config.enable_secret_extraction = true;
        Arc::new(config)
    };
    let server = |keypair| {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("a version")
            .with_client_cert_verifier(Arc::new(PeerCertificate { admits: None }))
            .with_cert_resolver(own(keypair));
        config.enable_secret_extraction = true;
        // A stock server gives out tickets, which come behind the handshake.
        config.send_tls13_tickets = 2;
        Arc::new(config)
    };
    let name = || ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
    let (mut secured, peer) = if is_dialler {
        let side = UnbufferedClientConnection::new(client(&ours), name()).expect("a side");
        let peer = ServerConnection::new(server(&theirs)).expect("a peer");
        shake(side, peer.into(), &end)
    } else {
        let side = UnbufferedServerConnection::new(server(&ours)).expect("a side");
        let peer = ClientConnection::new(client(&theirs), name()).expect("a peer");
        shake(side, peer.into(), &end)
    };
    // Our key changes after every 76 records.
    secured.record_limit = 1100;
    let connection = TlsConnection::new(end.clone(), secured).expect("keys");
    (connection, end, peer)
}

fn shake(
    side: impl handshake::Side,
    connection: Connection,
    end: &OurEnd,
) -> (handshake::Secured, RustlsPeer) {
    let mut peer = RustlsPeer {
        connection,
        received: Vec::new(),
    };
    let mut socket = end.clone();
    let mut handshake = pin!(handshake::complete(side, &mut socket, |_| ()));
    loop {
        if let Poll::Ready(done) = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            let secured = done.expect("a handshake").0;
            peer.turn(end);
            return (secured, peer);
        }
        peer.turn(end);
    }
}

/// Takes what has come, in either way.
fn receive(ours: &mut TlsConnection<OurEnd>, numbers: &mut Numbers, received: &mut Vec<u8>) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut target = vec![0; MAX_RECORD];
    loop {
        let more = if numbers.below(2) == 0 {
            match ours.open_into(&mut target).expect("their records are right") {
                OpenedInto::Content(n) => received.extend_from_slice(&target[..n]),
                OpenedInto::NoRoom => panic!("there is room for a record"),
                OpenedInto::Nothing => {}
            }
            false
        } else {
            let opened = ours.open().expect("their records are right");
            opened.is_some_and(|at| {
                received.extend_from_slice(ours.content(at));
                true
            })
        };
        if !more && !ours.has_record() {
            if ours.has_ended() {
                return;
            }
            match ours.poll_receive(&mut cx) {
                Poll::Ready(received) => received.expect("memory does not fail"),
                Poll::Pending => return,
            }
        }
    }
}

#[test]
fn records_and_new_keys_pass_both_ways_in_pieces_of_any_size() {
    let mut cx = Context::from_waker(Waker::noop());
    for seed in 1..=12_u64 {
        for suite in cipher_suites(true) {
            for is_dialler in [true, false] {
                let (mut ours, end, mut peer) = side_of_suite(suite, is_dialler, seed);
                let mut numbers = Numbers(seed + 100);
                let (mut sent, mut written, mut received) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..120 {
                    let n = [0, 1, 100, 1400, MAX_CONTENT][numbers.below(5)];
                    let content = numbers.bytes(n);
                    ours.seal(&content, &[]).expect("seal");
                    sent.extend_from_slice(&content);
                    let n = numbers.below(3000);
                    let bytes = numbers.bytes(n);
                    peer.connection.writer().write_all(&bytes).expect("write");
                    written.extend_from_slice(&bytes);
                    if numbers.below(10) == 0 {
                        peer.connection.refresh_traffic_keys().expect("a new key");
                    }
                    if numbers.below(3) == 0 {
                        assert!(ours.poll_send(&mut cx).is_ready());
                        peer.turn(&end);
                        receive(&mut ours, &mut numbers, &mut received);
                    }
                }
                assert!(ours.poll_close(&mut cx).is_ready());
                peer.turn(&end);
                assert!(
                    peer.received == sent,
                    "what rustls opened, seed {seed}, {suite:?}"
                );
                assert!(
                    peer.connection
                        .process_new_packets()
                        .is_ok_and(|state| state.peer_has_closed())
                );
                peer.connection.send_close_notify();
                peer.turn(&end);
                receive(&mut ours, &mut numbers, &mut received);
                assert!(received == written, "what we opened, seed {seed}, {suite:?}");
                assert!(ours.has_ended());
            }
        }
    }
}

#[test]
fn a_connection_that_is_cut_has_not_ended_in_order() {
    let (mut ours, end, _peer) = side_of_suite(TLS13_AES_128_GCM_SHA256, true, 7);
    let mut cx = Context::from_waker(Waker::noop());
    end.0.lock().expect("not poisoned").has_ended = true;

    let error = loop {
        while ours.open().expect("tickets").is_some() {}
        match ours.poll_receive(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => break error,
            Poll::Pending => panic!("it has ended"),
        }
    };

    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(!ours.has_ended());
}
