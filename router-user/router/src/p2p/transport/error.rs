//! Why the transports cannot be set up.

use std::io;

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
    /// A socket cannot be made.
    #[error("cannot make a socket")]
    Socket(#[source] io::Error),
    /// The kernel makes no sockets of Multipath TCP.
    #[error(
        "cannot make a socket of Multipath TCP: the kernel needs CONFIG_MPTCP, and `sysctl net.mptcp.enabled=1`; without \
         transport.mptcp the node goes on with TCP"
    )]
    Multipath(#[source] io::Error),
    /// The kernel does not let this process use a congestion control.
    #[error(
        "cannot use the congestion control {name}: the kernel has {available}, of which programs without CAP_NET_ADMIN may \
         use {allowed}; `modprobe tcp_{name}` may load it"
    )]
    Congestion {
        /// The congestion control that was asked for.
        name: String,
        /// Those that the kernel has loaded.
        available: String,
        /// Those that any process may use.
        allowed: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The Noise key for the identity cannot be made.
    #[error("cannot set up Noise for the node's key")]
    Noise(#[source] noise::Error),
}
