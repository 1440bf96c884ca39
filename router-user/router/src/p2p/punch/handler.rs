//! What the two sides of a relayed connection say before they connect directly, in the connection's task.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Candidates, PUNCH_PROTOCOL, PunchWord,
    message::{self, Kind},
};
use crate::p2p::limits::OPEN_TIMEOUT;

/// How long an exchange may take: some round trips by way of the relay.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(8);

type Exchange = BoxFuture<'static, io::Result<Vec<Multiaddr>>>;

/// Agrees with the peer when both dial.
pub(in crate::p2p) struct PunchHandler {
    /// Whether the exchange of this node stands when both sides begin one at once.
    leads: bool,
    candidates: Arc<Candidates>,
    own: Own,
    theirs: Option<Exchange>,
    words: VecDeque<PunchWord>,
}

/// The exchange that this side begins.
enum Own {
    None,
    Asked,
    Opening,
    Talking(Exchange),
}

impl PunchHandler {
    pub(super) fn new(leads: bool, candidates: Arc<Candidates>) -> Self {
        Self {
            leads,
            candidates,
            own: Own::None,
            theirs: None,
            words: VecDeque::new(),
        }
    }

    fn poll_exchanges(&mut self, cx: &mut Context<'_>) {
        if let Own::Talking(exchange) = &mut self.own
            && let Poll::Ready(end) = exchange.poll_unpin(cx)
        {
            self.own = Own::None;
            self.words.push_back(match end {
                Ok(addresses) => PunchWord::Agreed {
                    is_own: true,
                    addresses,
                },
                Err(error) => PunchWord::Failed(error.to_string()),
            });
        }
        if let Some(exchange) = &mut self.theirs
            && let Poll::Ready(end) = exchange.poll_unpin(cx)
        {
            self.theirs = None;
            match end {
                Ok(addresses) => self.words.push_back(PunchWord::Agreed {
                    is_own: false,
                    addresses,
                }),
                Err(error) => {
                    tracing::debug!(%error, "a peer has begun to agree on a direct connection, and not ended")
                }
            }
        }
    }

    /// Takes in that the peer has begun. Of two exchanges at once one is given up, the same on both sides.
    fn handle_theirs(&mut self, stream: Stream) {
        if !matches!(self.own, Own::None) {
            if self.leads {
                return;
            }
            self.own = Own::None;
            self.words.push_back(PunchWord::GaveWay);
        }
        self.theirs = Some(limited(answer(stream, Arc::clone(&self.candidates))));
    }
}

impl ConnectionHandler for PunchHandler {
    type FromBehaviour = ();
    type ToBehaviour = PunchWord;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PUNCH_PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), PunchWord>> {
        self.poll_exchanges(cx);
        if let Some(word) = self.words.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(word));
        }
        if matches!(self.own, Own::Asked) {
            self.own = Own::Opening;
            let upgrade = ReadyUpgrade::new(PUNCH_PROTOCOL);
            let protocol = SubstreamProtocol::new(upgrade, ()).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, (): ()) {
        self.own = Own::Asked;
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            // A peer can begin as often as it likes; the last stream counts.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.handle_theirs(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                // It may have been given up meanwhile; then the stream is dropped, and the peer hears nothing.
                if matches!(self.own, Own::Opening) {
                    self.own = Own::Talking(limited(ask(protocol, Arc::clone(&self.candidates))));
                }
            }
            ConnectionEvent::DialUpgradeError(failure) => {
                if matches!(self.own, Own::Opening) {
                    self.own = Own::None;
                    self.words.push_back(PunchWord::Failed(match failure.error {
                        StreamUpgradeError::NegotiationFailed => {
                            "the peer does not know the protocol, or its configuration forbids it".to_owned()
                        }
                        error => error.to_string(),
                    }));
                }
            }
            _ => {}
        }
    }
}

fn limited(exchange: impl Future<Output = io::Result<Vec<Multiaddr>>> + Send + 'static) -> Exchange {
    let limited = timeout(EXCHANGE_LIMIT, exchange);
    limited
        .map(|end| end.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())))
        .boxed()
}

/// Begins: says where this node is seen, hears it of the peer, and ends when the peer hears the word to dial.
async fn ask(mut stream: Stream, candidates: Arc<Candidates>) -> io::Result<Vec<Multiaddr>> {
    let asked = Instant::now();
    message::write(&mut stream, Kind::Connect, &candidates.own()).await?;
    let addresses = message::read(&mut stream, Kind::Connect).await?;
    let round_trip = asked.elapsed();
    message::write(&mut stream, Kind::Sync, &[]).await?;
    sleep(round_trip / 2).await;
    Ok(addresses)
}

/// Answers, and ends with the word to dial.
async fn answer(mut stream: Stream, candidates: Arc<Candidates>) -> io::Result<Vec<Multiaddr>> {
    let addresses = message::read(&mut stream, Kind::Connect).await?;
    message::write(&mut stream, Kind::Connect, &candidates.own()).await?;
    message::read(&mut stream, Kind::Sync).await?;
    Ok(addresses)
}
