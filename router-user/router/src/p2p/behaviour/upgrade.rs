//! The agreement on a protocol for a stream, and the preamble of a stream of a lane.

use std::{io, iter};

use futures::{AsyncReadExt, AsyncWriteExt, future::BoxFuture};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
};

use crate::p2p::{
    preamble::{self, PREAMBLE_LEN, Preamble},
    stream::{IP_PROTOCOL, LANE_PROTOCOL},
};

/// Opens a stream: one of a lane if the peer knows such, and else a stream by itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::p2p) struct OpenUpgrade(pub(super) Option<Preamble>);

/// Accepts a stream of either protocol, with the preamble if it has one.
#[derive(Clone, Copy, Debug)]
pub(in crate::p2p) struct AcceptUpgrade;

/// A stream that a peer has opened.
pub(in crate::p2p) struct Accepted {
    pub(super) stream: Stream,
    pub(super) preamble: Option<[u8; PREAMBLE_LEN]>,
}

impl UpgradeInfo for OpenUpgrade {
    type Info = StreamProtocol;
    type InfoIter = iter::Chain<std::option::IntoIter<StreamProtocol>, iter::Once<StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let of_lane = self.0.map(|_| LANE_PROTOCOL);
        of_lane.into_iter().chain(iter::once(IP_PROTOCOL))
    }
}

/// A stream that this node has opened.
pub(in crate::p2p) struct Opened {
    pub(super) stream: Stream,
    /// Whether it is one of a lane, and the peer knows which.
    pub(super) is_in_lane: bool,
}

impl OutboundUpgrade<Stream> for OpenUpgrade {
    type Output = Opened;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Opened>>;

    fn upgrade_outbound(self, mut stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let preamble = self.0.filter(|_| protocol == LANE_PROTOCOL).map(preamble::encode);
        Box::pin(async move {
            let is_in_lane = preamble.is_some();
            if let Some(preamble) = preamble {
                stream.write_all(&preamble).await?;
                stream.flush().await?;
            }
            Ok(Opened { stream, is_in_lane })
        })
    }
}

impl UpgradeInfo for AcceptUpgrade {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [LANE_PROTOCOL, IP_PROTOCOL].into_iter()
    }
}

impl InboundUpgrade<Stream> for AcceptUpgrade {
    type Output = Accepted;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Accepted>>;

    fn upgrade_inbound(self, mut stream: Stream, protocol: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut preamble = None;
            if protocol == LANE_PROTOCOL {
                let mut bytes = [0; PREAMBLE_LEN];
                stream.read_exact(&mut bytes).await?;
                preamble = Some(bytes);
            }
            Ok(Accepted { stream, preamble })
        })
    }
}
