//! The transports, which bring connections up: TCP with `/tls/1.0.0` (or `/noise`) and `/yamux/1.0.0`, and QUIC.
//!
//! All of them speak to stock libp2p nodes, and differ from stock transports in cost only: the cipher fits the CPU, yamux frames leave in
//! batches, and a socket is served by the thread of the connection that uses it.

mod error;
mod security;
mod socket;
#[cfg(test)]
mod test_network;
mod tls;
mod yamux;

use std::{env, time::Duration};

use futures::future::Either;
use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, quic, tcp,
};

use super::limits::{DEAD_AFTER, MAX_STREAMS_PER_SIDE};
use error::KEY_LOG;
pub use error::TransportError;
use security::Security;
use socket::Socket;
use tls::Tls;

/// How long bringing up a connection may take, from the first packet to the multiplexer.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(4);

/// Most streams that a QUIC peer may open: those that carry packets, its pings, and some being negotiated.
const QUIC_STREAMS: u32 = 2 * MAX_STREAMS_PER_SIDE as u32;

/// Builds the transports of a node with this identity.
///
/// The function must be called, and the transport and its connections polled, within a tokio runtime that has I/O and
/// time enabled.
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
        .multiplex(yamux::YamuxUpgrade)
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
