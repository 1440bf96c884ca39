//! TLS 1.3 as libp2p defines it, with the cipher that suits the CPU first.
//!
//! <https://github.com/libp2p/specs/blob/master/tls/tls.md>. libp2p-tls itself always prefers ChaCha20.

mod connection;
mod handshake;
mod record;
mod stream;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId,
    identity::Keypair,
    tls::certificate::{self, P2pCertificate, ParseError},
};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, PeerIncompatible,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::{
        ResolvesClientCert, Resumption, UnbufferedClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
            default_provider,
            sign::any_ecdsa_type,
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::time::timeout;

use super::{
    certificate::{generate, instance_of},
    error::TransportError,
    refusal::is_refusal,
};
pub(super) use connection::{OpenedInto, TlsConnection};
pub(super) use record::{MAX_CONTENT, RecordError};
pub(super) use stream::TlsStream;

/// The protocol that every libp2p node names in the handshake (ALPN).
const ALPN: &[u8] = b"libp2p";

/// The one that a node names beside it which takes streams in records.
pub(super) const RECORD_STREAMS: &[u8] = b"/stream-router/lanes/1";

/// How long the peer may take to read why it was refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

/// Says whether a peer is configured here, and counts one that is not.
pub(in crate::p2p) type Admits = Arc<dyn Fn(PeerId) -> bool + Send + Sync>;

/// The TLS configuration of one identity, for both sides of the handshake.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the peer showed no single certificate")]
    NoCertificate,
    #[error("the peer's certificate is not valid")]
    Certificate(#[source] ParseError),
}

/// What both sides have found out about each other.
pub(super) struct TlsPeer {
    pub(super) id: PeerId,
    /// The number of the start of its node, if it has told.
    pub(super) instance: Option<u64>,
    /// Whether it takes streams in records.
    pub(super) takes_record_streams: bool,
}

impl Tls {
    /// Makes the configuration of an identity that accepts those whom `admits` names, and dials anybody.
    pub(super) fn new(keypair: &Keypair, admits: Admits, instance: u64) -> Result<Self, TransportError> {
        let own = OwnCertificate::new(keypair, instance)?;
        let mut client = client_config(Arc::clone(&own))?;
        let mut server = server_config(own, admits)?;
        client.enable_secret_extraction = true;
        server.enable_secret_extraction = true;
        client.alpn_protocols.insert(0, RECORD_STREAMS.to_vec());
        server.alpn_protocols.insert(0, RECORD_STREAMS.to_vec());
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Returns the configuration with which both sides agree on bytes, never on streams in records.
    pub(super) fn without_record_streams(&self) -> Self {
        let mut plain = self.clone();
        Arc::make_mut(&mut plain.client).alpn_protocols = vec![ALPN.to_vec()];
        Arc::make_mut(&mut plain.server).alpn_protocols = vec![ALPN.to_vec()];
        plain
    }

    /// Does the handshake of the dialler. Returns the authenticated peer and the connection.
    pub(super) async fn connect<C>(self, mut socket: C) -> Result<(TlsPeer, TlsConnection<C>), TlsError>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        // The specification forbids sending a server name, and rustls sends none for an IP address.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let side = UnbufferedClientConnection::new(self.client, name).map_err(handshake_error)?;
        let handshake = handshake::complete(side, &mut socket, authenticated_peer).await;
        let (secured, peer) = handshake.map_err(TlsError::Handshake)?;
        let connection = TlsConnection::new(socket, secured).map_err(handshake_error)?;
        Ok((peer?, connection))
    }

    /// Does the handshake of the listener. Returns the authenticated peer and the connection.
    pub(super) async fn accept<C>(self, mut socket: C) -> Result<(TlsPeer, TlsConnection<C>), TlsError>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let side = UnbufferedServerConnection::new(self.server).map_err(handshake_error)?;
        let (secured, peer) = match handshake::complete(side, &mut socket, authenticated_peer).await {
            Ok(done) => done,
            Err(error) => {
                if is_refusal(&error) {
                    // A socket that is closed with unread input resets the connection, and the peer may not learn why.
                    // It is refused whatever comes of this.
                    let _in_vain = timeout(REFUSAL_LIMIT, socket.close()).await;
                }
                return Err(TlsError::Handshake(error));
            }
        };
        let connection = TlsConnection::new(socket, secured).map_err(handshake_error)?;
        Ok((peer?, connection))
    }
}

fn handshake_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Handshake(io::Error::other(error))
}

/// Returns the configuration of the dialling side of QUIC, as [`Tls::new`] has it for TCP.
pub(super) fn quic_client_config(keypair: &Keypair, instance: u64) -> Result<ClientConfig, TransportError> {
    client_config(OwnCertificate::new(keypair, instance)?)
}

/// Returns the configuration of the accepting side of QUIC, as [`Tls::new`] has it for TCP.
pub(super) fn quic_server_config(
    keypair: &Keypair,
    admits: Admits,
    instance: u64,
) -> Result<ServerConfig, TransportError> {
    server_config(OwnCertificate::new(keypair, instance)?, admits)
}

fn client_config(own: Arc<OwnCertificate>) -> Result<ClientConfig, TransportError> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TransportError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerCertificate { admits: None }))
        .with_client_cert_resolver(own);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(client)
}

fn server_config(own: Arc<OwnCertificate>, admits: Admits) -> Result<ServerConfig, TransportError> {
    let verifier = PeerCertificate { admits: Some(admits) };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TransportError::Tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(has_aes()),
        ..default_provider()
    })
}

fn authenticated_peer(session: &CommonState) -> Result<TlsPeer, TlsError> {
    let Some([certificate]) = session.peer_certificates() else {
        return Err(TlsError::NoCertificate);
    };
    let id = certificate::parse(certificate)
        .map_err(TlsError::Certificate)?
        .peer_id();
    Ok(TlsPeer {
        id,
        instance: instance_of(certificate),
        takes_record_streams: session.alpn_protocol() == Some(RECORD_STREAMS),
    })
}

/// Returns the cipher suites in order of preference; the dialler's order decides.
fn cipher_suites(has_aes: bool) -> Vec<SupportedCipherSuite> {
    if has_aes {
        vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_256_GCM_SHA384,
        ]
    } else {
        vec![
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
        ]
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// Shows this node's certificate, no matter which one is asked for. The resolvers of rustls refuse its critical libp2p
/// extension.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl OwnCertificate {
    fn new(keypair: &Keypair, instance: u64) -> Result<Arc<Self>, TransportError> {
        let made = generate(keypair, instance).map_err(|error| TransportError::Certificate(error.into()));
        let (certificate, key) = made?;
        let key = any_ecdsa_type(&key).map_err(TransportError::Tls)?;
        let certified = CertifiedKey::new(vec![certificate], key);
        Ok(Arc::new(Self(Arc::new(certified))))
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Accepts exactly one self-signed certificate that carries a libp2p key and its signature.
///
/// The accepting side refuses a peer that is not configured once it has proved who it is, with an alert that says so.
/// Whether it is the dialled peer is decided later, by the swarm.
struct PeerCertificate {
    /// `None` takes every peer.
    admits: Option<Admits>,
}

impl PeerCertificate {
    fn verify(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        certificate::parse(certificate)?;
        Ok(())
    }

    /// Refuses a peer that is not admitted, which is the alert `access_denied`.
    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let peer = certificate::parse(certificate)?.peer_id();
        match &self.admits {
            Some(admits) if !admits(peer) => Err(CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(()),
        }
    }

    fn verify_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let certificate: P2pCertificate<'_> = certificate::parse(certificate)?;
        certificate.verify_signature(signature.scheme, message, signature.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Returns the schemes that [`P2pCertificate::verify_signature`] understands and the specification allows.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
        ]
    }

    fn no_tls12() -> rustls::Error {
        PeerIncompatible::Tls12NotOfferedOrEnabled.into()
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PeerCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::verify(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for PeerCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::verify(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let proved = Self::verify_signature(message, certificate, signature)?;
        self.admit(certificate)?;
        Ok(proved)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
pub(super) mod tests;
