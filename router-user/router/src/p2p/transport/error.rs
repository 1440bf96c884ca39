//! Why the transports cannot be set up.

use libp2p::noise;
use quinn::crypto::rustls::NoInitialCipherSuite;

/// The variable that makes rustls write session keys to a file.
pub(super) const KEY_LOG: &str = "SSLKEYLOGFILE";

/// Why the transports cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The environment asks for session keys in a file, and the QUIC implementation would obey.
    #[error("the environment variable {KEY_LOG} is set, which would write session keys to a file; unset it")]
    KeyLog,
    /// The TLS certificate for the identity cannot be made.
    #[error("cannot make a TLS certificate for the node's key")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// rustls refuses the certificate or the cipher suites.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// No cipher suite protects the first packets of QUIC.
    #[error("cannot set up QUIC")]
    QuicCipher(#[source] NoInitialCipherSuite),
    /// The keys of QUIC's stateless resets cannot be derived from the node's key.
    #[error("the node's key is of a kind from which no other can be derived")]
    ResetKey,
    /// The Noise key for the identity cannot be made.
    #[error("cannot set up Noise for the node's key")]
    Noise(#[source] noise::Error),
}
