//! A connection of ours whose other side is rustls.

use std::{
    io::{self, Read, Write},
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
    client::UnbufferedClientConnection,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
            default_provider,
        },
    },
    pki_types::{PrivateKeyDer, ServerName},
    server::UnbufferedServerConnection,
    version::TLS13,
};

use super::{
    connection::{OpenedInto, TlsConnection},
    handshake::{self, Secured, Side},
    record::{MAX_CONTENT, MAX_RECORD},
    script::{OurEnd, Script},
};

/// Unsent bytes above which the script carries them on.
const MOST_UNSENT: usize = 256 * 1024;

/// Keys that the peer changes in a row.
const MOST_NEW_KEYS: u32 = 16;

/// The configurations of both roles for each cipher.
static CONFIGS: LazyLock<[(Arc<ClientConfig>, Arc<ServerConfig>); 3]> = LazyLock::new(|| {
    let suites = [
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let own = rcgen::generate_simple_self_signed(["peer".to_owned()]).expect("a certificate");
    suites.map(|suite| configs(suite, &own))
});

fn configs(suite: SupportedCipherSuite, own: &rcgen::CertifiedKey) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..default_provider()
    });
    let certificate = own.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivateKeyDer::try_from(own.key_pair.serialize_der()).expect("a key");
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a server");
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 2;
    (Arc::new(client), Arc::new(server))
}

/// Does what the input says.
pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let choice = script.byte();
    let (client, server) = CONFIGS[usize::from(choice >> 1) % CONFIGS.len()].clone();
    let name = ServerName::try_from("peer").expect("a name");
    let end = OurEnd::default();
    end.0.borrow_mut().piece = MAX_RECORD;
    let (mut secured, peer) = if choice & 1 == 0 {
        let side = UnbufferedClientConnection::new(client, name).expect("a side");
        shake(side, ServerConnection::new(server).expect("a peer").into(), &end)
    } else {
        let side = UnbufferedServerConnection::new(server).expect("a side");
        shake(
            side,
            ClientConnection::new(client, name).expect("a peer").into(),
            &end,
        )
    };
    // Our key changes soon.
    secured.record_limit = 1024 + 8 + u64::from(script.byte());
    let ours = TlsConnection::new(end.clone(), secured).expect("keys");
    Exchange {
        ours,
        peer,
        end,
        to_rustls: Way::default(),
        to_ours: Way::default(),
        n_new_keys: 0,
    }
    .play(&mut script);
}

fn shake(side: impl Side, mut peer: Connection, end: &OurEnd) -> (Secured, Connection) {
    let mut socket = end.clone();
    let mut handshake = pin!(handshake::complete(side, &mut socket, |_| ()));
    loop {
        let done = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut wire = end.0.borrow_mut();
        while !wire.from_ours.is_empty() {
            peer.read_tls(&mut wire.from_ours).expect("a read from memory");
            peer.process_new_packets().expect("a handshake");
        }
        while peer.wants_write() {
            peer.write_tls(&mut wire.to_ours).expect("a write to memory");
        }
        if let Poll::Ready(done) = done {
            return (done.expect("a handshake").0, peer);
        }
    }
}

/// What goes one way.
#[derive(Default)]
struct Way {
    sealed: Vec<u8>,
    opened: Vec<u8>,
    /// Whether a byte was changed on it.
    is_broken: bool,
    has_failed: bool,
}

impl Way {
    fn check(&self) {
        assert!(
            self.sealed.starts_with(&self.opened),
            "what is opened was sealed, in order"
        );
    }
}

struct Exchange {
    ours: TlsConnection<OurEnd>,
    peer: Connection,
    end: OurEnd,
    to_rustls: Way,
    to_ours: Way,
    /// Keys of the peer's since it has written anything.
    n_new_keys: u32,
}

impl Exchange {
    fn play(mut self, script: &mut Script<'_>) {
        while !script.is_over() {
            match script.byte() % 8 {
                0 | 1 => self.seal(script),
                2 => self.write(script),
                3 => self.change_their_key(),
                4 => self.end.0.borrow_mut().piece = 1 + script.number(MAX_RECORD),
                5 => self.carry_to_rustls(),
                6 => self.carry_to_ours(script.byte()),
                _ => self.break_a_byte(script),
            }
            self.to_rustls.check();
            self.to_ours.check();
        }
        self.close();
    }

    /// Says whether a fault of a byte may have ended the connection for either side.
    fn may_fail(&self) -> bool {
        self.to_ours.is_broken || self.to_rustls.is_broken
    }

    fn seal(&mut self, script: &mut Script<'_>) {
        let n = script.number(MAX_CONTENT);
        let content = script.bytes(n);
        let (front, trailer) = content.split_at(n.saturating_sub(script.number(8)));
        match self.ours.seal(front, trailer) {
            Ok(()) => self.to_rustls.sealed.extend(content),
            Err(_) => assert!(self.may_fail(), "what fits a record is sealed"),
        }
        // A peer that takes nothing loses the connection.
        if self.ours.n_unsent() > MOST_UNSENT {
            self.carry_to_rustls();
        }
    }

    fn change_their_key(&mut self) {
        // More of them in a row are a fault of the peer.
        if self.n_new_keys < MOST_NEW_KEYS && self.peer.refresh_traffic_keys().is_ok() {
            self.n_new_keys += 1;
        }
    }

    fn write(&mut self, script: &mut Script<'_>) {
        let n = script.number(2 * MAX_CONTENT);
        let content = script.bytes(n);
        let Ok(n) = self.peer.writer().write(&content) else {
            return assert!(self.may_fail(), "it has seen no fault");
        };
        self.to_ours.sealed.extend(&content[..n]);
        if n > 0 {
            self.n_new_keys = 0;
        }
    }

    fn carry_to_rustls(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.ours.poll_send(&mut cx).is_pending() {
            unreachable!("the wire takes all");
        }
        let mut wire = self.end.0.borrow_mut();
        while !wire.from_ours.is_empty() && !self.to_rustls.has_failed {
            let piece = wire.piece.max(1) as u64;
            let read = self.peer.read_tls(&mut (&mut wire.from_ours).take(piece));
            let processed = read
                .map_err(|_| ())
                .and_then(|_| self.peer.process_new_packets().map(|_| ()).map_err(|_| ()));
            if processed.is_err() {
                assert!(
                    self.to_rustls.is_broken || self.to_ours.is_broken,
                    "our records are right"
                );
                self.to_rustls.has_failed = true;
            }
            match self.peer.reader().read_to_end(&mut self.to_rustls.opened) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    assert!(self.may_fail() || error.kind() == io::ErrorKind::UnexpectedEof)
                }
                _ => {}
            }
        }
    }

    fn carry_to_ours(&mut self, choice: u8) {
        {
            let mut wire = self.end.0.borrow_mut();
            while self.peer.wants_write() {
                self.peer.write_tls(&mut wire.to_ours).expect("a write to memory");
            }
        }
        let mut target = vec![0; MAX_RECORD];
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let opened = if choice & 1 == 0 {
                self.ours.open_into(&mut target).map(|opened| match opened {
                    OpenedInto::Content(n) => Some(target[..n].to_vec()),
                    OpenedInto::NoRoom => panic!("there is room for a record"),
                    OpenedInto::Nothing => None,
                })
            } else {
                self.ours
                    .open()
                    .map(|opened| opened.map(|at| self.ours.content(at).to_vec()))
            };
            match opened {
                Ok(Some(content)) => self.to_ours.opened.extend(content),
                Ok(None) if self.ours.has_ended() => return,
                Ok(None) => match self.ours.poll_receive(&mut cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return assert!(self.may_fail()),
                    Poll::Pending => return,
                },
                Err(_) => return assert!(self.may_fail(), "their records are right"),
            }
        }
    }

    fn break_a_byte(&mut self, script: &mut Script<'_>) {
        let mut wire = self.end.0.borrow_mut();
        let (bytes, way) = match script.byte() & 1 {
            0 => (&mut wire.to_ours, &mut self.to_ours),
            _ => (&mut wire.from_ours, &mut self.to_rustls),
        };
        let at = script.number(bytes.len());
        let change = script.byte();
        if let Some(byte) = bytes.get_mut(at)
            && change != 0
        {
            *byte ^= change;
            way.is_broken = true;
        }
    }

    fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let closed = self.ours.poll_close(&mut cx);
        self.carry_to_rustls();
        if !self.may_fail() && matches!(closed, Poll::Ready(Ok(()))) {
            assert!(
                self.to_rustls.opened == self.to_rustls.sealed,
                "all that was sealed came"
            );
        }
        self.to_rustls.check();
    }
}
