//! The transports, which bring connections up: TCP with `/tls/1.0.0` (or `/noise`), and QUIC. Over TLS on TCP two nodes of
//! ours have their streams in TLS records; with every other peer, and over Noise, `/yamux/1.0.0` has them.
//!
//! All of them speak to stock libp2p nodes, and differ from stock transports in cost only: the cipher fits the CPU, yamux frames leave in
//! batches, and a socket is served by the thread of the connection that uses it.

mod backlog;
mod certificate;
mod circuit;
mod error;
mod listen_addresses;
mod marks;
mod own_port;
mod proxy;
mod quic;
mod record_muxer;
mod refusal;
mod security;
mod segments;
mod socket;
mod tcp;
mod tcp_info;
mod tcp_listener;
mod tcp_sockets;
#[cfg(test)]
mod test_network;
#[cfg(test)]
mod test_wire;
mod tls;
mod yamux;

use std::{env, sync::Arc, time::Duration};

use futures::future::Either;
use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    noise, relay,
};

use circuit::CircuitTransport;

use super::handshakes::Handshakes;
use super::limits::{DEAD_AFTER, MAX_STREAMS_PER_SIDE};
use super::names::HostLookup;
use super::next_connection::NextConnection;
use super::tcp_config::TcpConfig;
use error::KEY_LOG;
pub use error::TransportError;
pub(super) use marks::SocketMarks;
pub(super) use own_port::{is_port_taken, no_port_for};
use proxy::Proxy;
use quic::QuicTransport;
pub(super) use refusal::is_refusal;
use security::Security;
pub(super) use segments::{SegmentBook, Stall};
use tcp::TcpTransport;
use tcp_sockets::TcpSockets;
pub(super) use tls::Admits;
use tls::Tls;

/// How long a QUIC handshake may take, which is one round trip. What TCP may take is said with [`TcpTransport`].
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// Most streams that a QUIC peer may open: those that carry packets, its pings, and some being negotiated.
const QUIC_STREAMS: u32 = 2 * MAX_STREAMS_PER_SIDE as u32;

/// How connections are made.
pub(super) struct Ways {
    /// Over TCP.
    pub(super) tcp: TcpConfig,
    /// What looks the name of a proxy up, with the marks of all packets and sockets.
    pub(super) hosts: HostLookup,
    /// Through relays.
    pub(super) circuits: relay::client::Transport,
    /// What is said of the next one.
    pub(super) next_connection: NextConnection,
}

/// Builds the transports of a node with this identity, that accept the peers that `admits` names, and make connections in
/// these `ways`. What is learnt of paths that lose large packets is kept in `segments`, and inbound connections take their
/// places in `handshakes`. Connections are pinged every `keepalive` at least.
///
/// The function must be called, and the transport and its connections polled, within a tokio runtime that has I/O and
/// time enabled.
pub(super) fn build(
    keypair: &Keypair,
    segments: Arc<SegmentBook>,
    handshakes: Arc<Handshakes>,
    ways: Ways,
    keepalive: Duration,
    admits: &Admits,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    if env::var_os(KEY_LOG).is_some() {
        return Err(TransportError::KeyLog);
    }
    let security = Security {
        tls: Tls::new(keypair, Arc::clone(admits), handshakes.instances.own())?,
        noise: noise::Config::new(keypair).map_err(TransportError::Noise)?,
        instances: Arc::clone(&handshakes.instances),
        counters: Arc::clone(&handshakes.counters),
    };
    let Ways {
        tcp,
        hosts,
        circuits,
        next_connection,
    } = ways;
    let circuits = CircuitTransport::new(circuits, security.clone());
    let marks = hosts.marks();
    let sockets = TcpSockets::new(marks, tcp.congestion.clone(), tcp.multipath)?;
    let tcp_congestion = tcp.congestion;
    let proxy = tcp.proxy.map(|config| Arc::new(Proxy::new(config, hosts)));
    let tcp = TcpTransport::new(
        security,
        Arc::clone(&segments),
        Arc::clone(&handshakes),
        sockets,
        proxy.clone(),
        next_connection.clone(),
    );

    let quic = QuicTransport::new(
        keypair,
        quic::Limits {
            handshake: QUIC_HANDSHAKE_TIMEOUT,
            idle: 2 * keepalive + DEAD_AFTER,
            keepalive: keepalive * 3 / 2,
            streams: QUIC_STREAMS,
            marks,
            congestion: tcp_congestion,
            proxy,
            next_connection,
        },
        Arc::clone(admits),
        handshakes,
    )?;

    Ok(circuits
        .or_transport(tcp)
        .or_transport(quic)
        .map(move |either, _| match either {
            Either::Left(Either::Left(connection) | Either::Right(connection)) => connection,
            Either::Right((peer, connection)) => {
                let watched = connection.watched(Arc::clone(&segments));
                (peer, StreamMuxerBox::new(watched))
            }
        })
        .boxed())
}
