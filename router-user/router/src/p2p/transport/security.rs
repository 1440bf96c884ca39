//! The security protocol of a TCP connection: TLS, or Noise with a peer that has no TLS.

use std::{
    array, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use futures_rustls::TlsStream;
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    noise,
};

use super::certificate::instance_of;
use super::tls::{Tls, TlsError};
use crate::p2p::instances::Instances;

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

/// The security protocols of one identity.
#[derive(Clone)]
pub(super) struct Security {
    pub(super) tls: Tls,
    pub(super) noise: noise::Config,
    pub(super) instances: Arc<Instances>,
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
pub(super) enum Secured<C> {
    Tls(Box<TlsStream<C>>),
    Noise(Box<noise::Output<C>>),
}

type Upgraded<C> = BoxFuture<'static, Result<(PeerId, Secured<C>), SecurityError>>;

impl<C> Secured<C> {
    /// Returns the number of the start of the peer's node, if it has told.
    pub(super) fn instance(&self) -> Option<u64> {
        match self {
            Self::Tls(stream) => instance_of(stream.get_ref().1.peer_certificates()?.first()?),
            Self::Noise(_) => None,
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
    type Output = (PeerId, Secured<C>);
    type Error = SecurityError;
    type Future = Upgraded<C>;

    fn upgrade_inbound(self, socket: C, protocol: &'static str) -> Self::Future {
        async move {
            if protocol == TLS {
                let (peer, stream) = self.tls.accept(socket).await?;
                return Ok((peer, Secured::Tls(Box::new(stream))));
            }
            let (peer, stream) = self.noise.upgrade_inbound(socket, protocol).await?;
            Ok((peer, Secured::Noise(Box::new(stream))))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = SecurityError;
    type Future = Upgraded<C>;

    fn upgrade_outbound(self, socket: C, protocol: &'static str) -> Self::Future {
        async move {
            if protocol == TLS {
                let (peer, stream) = self.tls.connect(socket).await?;
                return Ok((peer, Secured::Tls(Box::new(stream))));
            }
            let (peer, stream) = self.noise.upgrade_outbound(socket, protocol).await?;
            Ok((peer, Secured::Noise(Box::new(stream))))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<C> {
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

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<C> {
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
