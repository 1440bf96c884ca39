//! How connections come up: TCP with `/tls/1.0.0` (or `/noise`) and `/yamux/1.0.0`, and QUIC.
//!
//! All of it speaks to stock libp2p nodes. Ours differs in cost only: the cipher fits the CPU, yamux frames leave in
//! batches, and a socket is served by the thread of the connection that uses it.

mod security;
mod socket;
mod tls;
mod yamux;

use std::{env, time::Duration};

use futures::future::Either;
use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, quic, tcp,
    tls::certificate::GenError,
};

use super::{DEAD_AFTER, MAX_STREAMS_PER_SIDE};
use security::Security;
use socket::Socket;
use tls::Tls;

/// How long bringing up a connection may take, from the first packet to the multiplexer.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(4);

/// Most streams a QUIC peer may open: those of our protocol, its pings, and some being negotiated.
const QUIC_STREAMS: u32 = 2 * MAX_STREAMS_PER_SIDE as u32;

/// The variable that makes rustls write session keys to a file.
const KEY_LOG: &str = "SSLKEYLOGFILE";

/// Why the transports cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The environment asks for session keys in a file, and the QUIC implementation would obey.
    #[error("the environment variable {KEY_LOG} is set, which would write session keys to a file; unset it")]
    KeyLog,
    /// The TLS certificate for the identity cannot be made.
    #[error("cannot make a TLS certificate for the node's key")]
    Certificate(#[source] GenError),
    /// rustls refuses the certificate or the cipher suites.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The Noise key for the identity cannot be made.
    #[error("cannot set up Noise for the node's key")]
    Noise(#[source] noise::Error),
}

/// Builds the transports of a node with this identity.
///
/// Must be called, and the transport polled, within a tokio runtime that has I/O and time enabled; so must the
/// connections it yields.
pub(super) fn build(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    if env::var_os(KEY_LOG).is_some() {
        return Err(TransportError::KeyLog);
    }
    let security = Security {
        tls: Tls::new(keypair)?,
        noise: noise::Config::new(keypair).map_err(TransportError::Noise)?,
    };
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .and_then(|stream, _| std::future::ready(Socket::new(stream.0)))
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(yamux::Config)
        .timeout(ESTABLISH_TIMEOUT)
        .boxed();

    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = ESTABLISH_TIMEOUT;
    config.max_idle_timeout = DEAD_AFTER.as_millis() as u32;
    config.keep_alive_interval = DEAD_AFTER / 5;
    config.max_concurrent_stream_limit = QUIC_STREAMS;
    let quic = quic::tokio::Transport::new(config);

    Ok(tcp
        .or_transport(quic)
        .map(|either, _| match either {
            Either::Left(connection) => connection,
            Either::Right((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
        })
        .boxed())
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use rtnetlink::LinkUnspec;

    /// Runs `body` on a thread in a network namespace with nothing but a loopback device, which ends with the thread.
    pub(super) fn in_own_network<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own needs root");
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                runtime.block_on(async {
                    let (connection, netlink, _) = rtnetlink::new_connection().expect("netlink");
                    tokio::spawn(connection);
                    let up = LinkUnspec::new_with_index(1).up().build();
                    netlink.link().set(up).execute().await.expect("set lo up");
                });
                drop(runtime);
                body()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
