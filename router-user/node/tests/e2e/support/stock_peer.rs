//! A peer made of stock libp2p parts, which sends whatever bytes a test wants on its streams.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise, tcp, yamux};

/// The protocol of packet streams without an order.
pub(crate) const PROTOCOL: &str = "/stream-router/ip/1";
/// The protocol of packet streams of a lane.
pub(crate) const LANE_PROTOCOL: &str = "/stream-router/ip/2";
const PING_PROTOCOL: &str = "/ipfs/ping/1.0.0";
const PING_LEN: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a node. It moves, and answers pings, only while one of its methods runs.
pub(crate) struct StockPeer {
    muxer: StreamMuxerBox,
    /// The streams that the node has opened.
    answers: Vec<BoxFuture<'static, Result<()>>>,
    ended: bool,
}

impl StockPeer {
    /// Connects to a node with this identity.
    pub(crate) async fn connect(identity: &Keypair, at: Multiaddr) -> Result<Self> {
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(identity)?)
            .multiplex(yamux::Config::default())
            .boxed();
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dialed = tokio::time::timeout(PATIENCE, transport.dial(at, options)?).await;
        let (_, muxer) = dialed.context("the handshake stalled")??;
        Ok(Self {
            muxer,
            answers: Vec::new(),
            ended: false,
        })
    }

    /// Opens a stream and asks for a protocol.
    pub(crate) async fn open(&mut self, protocol: &str) -> Result<SubstreamBox> {
        let mut stream = self.open_silent().await?;
        let exchange = async {
            stream
                .write_all(&multistream_message("/multistream/1.0.0"))
                .await?;
            stream.write_all(&multistream_message(protocol)).await?;
            stream.flush().await?;
            ensure!(
                multistream_answer(&mut stream).await? == "/multistream/1.0.0",
                "another negotiation"
            );
            let answer = multistream_answer(&mut stream).await?;
            ensure!(answer == protocol, "the node answered {answer:?} to {protocol}");
            Ok(())
        };
        self.drive(exchange).await?;
        Ok(stream)
    }

    /// Opens a stream and says nothing on it.
    pub(crate) async fn open_silent(&mut self) -> Result<SubstreamBox> {
        let muxer = &mut self.muxer;
        let opened = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
                return Poll::Ready(Err(error));
            }
            muxer.poll_outbound_unpin(cx)
        });
        Ok(tokio::time::timeout(PATIENCE, opened)
            .await
            .context("opening a stream stalled")??)
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, stream: &mut SubstreamBox, bytes: &[u8]) -> Result<()> {
        let work = async {
            stream.write_all(bytes).await?;
            Ok(stream.flush().await?)
        };
        self.drive(work).await
    }

    /// Says that no more bytes follow.
    pub(crate) async fn finish(&mut self, stream: &mut SubstreamBox) -> Result<()> {
        let work = async { Ok(stream.close().await?) };
        self.drive(work).await
    }

    /// Waits until the node has ended a stream, by a reset or in order.
    pub(crate) async fn wait_ended(&mut self, stream: &mut SubstreamBox) -> Result<()> {
        let work = async {
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
            Ok(())
        };
        self.drive(work).await
    }

    /// Keeps the connection moving while something else is done, within a bound.
    pub(crate) async fn drive<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        let both = poll_fn(|cx| {
            self.advance(cx);
            let done = work.as_mut().poll(cx);
            // What the work wrote waits in the muxer.
            self.advance(cx);
            done
        });
        tokio::time::timeout(PATIENCE, both)
            .await
            .context("the peer stalled")?
    }

    /// Moves the connection as far as it goes; its end shows as the end of its streams.
    fn advance(&mut self, cx: &mut Context<'_>) {
        while !self.ended {
            match self.muxer.poll_unpin(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Ok(stream)) = self.muxer.poll_inbound_unpin(cx) {
            self.answers.push(Box::pin(answer_pings(stream)));
        }
        // One that ends has ended for the node, too.
        self.answers
            .retain_mut(|answer| answer.as_mut().poll(cx).is_pending());
    }
}

/// Answers the pings on a stream that the node has opened, and no other protocol.
async fn answer_pings(mut stream: SubstreamBox) -> Result<()> {
    stream
        .write_all(&multistream_message("/multistream/1.0.0"))
        .await?;
    stream.flush().await?;
    ensure!(
        multistream_answer(&mut stream).await? == "/multistream/1.0.0",
        "another negotiation"
    );
    let mut accepts = false;
    while !accepts {
        accepts = multistream_answer(&mut stream).await? == PING_PROTOCOL;
        let answer = if accepts { PING_PROTOCOL } else { "na" };
        stream.write_all(&multistream_message(answer)).await?;
        stream.flush().await?;
    }
    let mut ping = [0; PING_LEN];
    loop {
        stream.read_exact(&mut ping).await?;
        stream.write_all(&ping).await?;
        stream.flush().await?;
    }
}

/// A message of multistream-select 1.0: a length of one byte (the messages here are short), the text, a line feed.
pub(crate) fn multistream_message(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len() + 1)
        .ok()
        .filter(|len| *len < 0x80)
        .expect("a protocol name is short");
    [&[len], text.as_bytes(), b"\n"].concat()
}

async fn multistream_answer(stream: &mut SubstreamBox) -> Result<String> {
    let mut len = [0];
    stream.read_exact(&mut len).await?;
    let mut text = vec![0; usize::from(len[0])];
    stream.read_exact(&mut text).await?;
    match text.split_last() {
        Some((b'\n', text)) => Ok(String::from_utf8(text.to_vec())?),
        _ => bail!("a negotiation message without a line feed"),
    }
}
