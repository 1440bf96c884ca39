//! The security protocol of a TCP connection: TLS, or Noise with a peer that has no TLS.

use std::{
    array, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    noise,
};

use super::tls::{Tls, TlsConnection, TlsError, TlsPeer, TlsStream};
use crate::p2p::{counters::LiveNetworkCounters, instances::Instances};

pub(super) const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

/// The security protocols of one identity.
#[derive(Clone)]
pub(super) struct Security {
    pub(super) tls: Tls,
    pub(super) noise: noise::Config,
    pub(super) instances: Arc<Instances>,
    pub(super) counters: Arc<LiveNetworkCounters>,
}

/// Why a connection could not be secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecurityError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the Noise handshake failed")]
    Noise(#[from] noise::Error),
}

/// A secured connection.
pub(super) struct Secured<C> {
    pub(super) peer: PeerId,
    /// The number of the start of the peer's node, if it has told.
    pub(super) instance: Option<u64>,
    pub(super) channel: Channel<C>,
}

/// What goes over a secured connection.
pub(super) enum Channel<C> {
    /// Streams in TLS records.
    Records(Box<TlsConnection<C>>),
    /// Bytes, in which the two sides agree on a multiplexer.
    Bytes(SecuredBytes<C>),
}

/// The bytes of a secured connection.
pub(super) enum SecuredBytes<C> {
    Tls(Box<TlsStream<C>>),
    Noise(Box<noise::Output<C>>),
}

type Upgraded<C> = BoxFuture<'static, Result<Secured<C>, SecurityError>>;

impl<C> Secured<C> {
    fn tls((peer, connection): (TlsPeer, TlsConnection<C>)) -> Self {
        Self {
            peer: peer.id,
            instance: peer.instance,
            channel: match peer.takes_record_streams {
                true => Channel::Records(Box::new(connection)),
                false => Channel::Bytes(SecuredBytes::Tls(Box::new(TlsStream::new(connection)))),
            },
        }
    }

    fn noise((peer, stream): (PeerId, noise::Output<C>)) -> Self {
        Self {
            peer,
            instance: None,
            channel: Channel::Bytes(SecuredBytes::Noise(Box::new(stream))),
        }
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Secured<C>;
    type Error = SecurityError;
    type Future = Upgraded<C>;

    fn upgrade_inbound(self, socket: C, protocol: &'static str) -> Self::Future {
        async move {
            if protocol == TLS {
                return Ok(Secured::tls(self.tls.accept(socket).await?));
            }
            Ok(Secured::noise(
                self.noise.upgrade_inbound(socket, protocol).await?,
            ))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Secured<C>;
    type Error = SecurityError;
    type Future = Upgraded<C>;

    fn upgrade_outbound(self, socket: C, protocol: &'static str) -> Self::Future {
        async move {
            if protocol == TLS {
                return Ok(Secured::tls(self.tls.connect(socket).await?));
            }
            Ok(Secured::noise(
                self.noise.upgrade_outbound(socket, protocol).await?,
            ))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecuredBytes<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Noise(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecuredBytes<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
            Self::Noise(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Noise(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
            Self::Noise(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
