//! What the two sides of one connection say of its end, in the connection's task.

use std::{
    collections::VecDeque,
    io, mem,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt,
    future::{BoxFuture, pending, select, try_join},
};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{sync::oneshot, time::sleep};

use super::{Command, LEAVE_PROTOCOL, Leave, Word};
use crate::p2p::{limits::OPEN_TIMEOUT, stream_slots::ConnectionSlots};

/// After which time a word whose stream has ended is taken back. A connection that has ended as well is gone before.
const TAKEN_BACK_AFTER: Duration = Duration::from_secs(1);

/// Says that the connection is to be left, and hears it.
pub(in crate::p2p) struct DepartureHandler {
    slots: ConnectionSlots,
    own: OwnWord,
    heard: HeardWord,
    words: VecDeque<Word>,
}

/// The word of this side.
enum OwnWord {
    None,
    /// A stream is to be opened.
    Asked(Leave),
    Opening(Leave),
    /// The peer was told, and has not agreed yet.
    Said(BoxFuture<'static, io::Result<Stream>>),
    /// Both sides are done. The stream stays open, as its end would take the word back.
    Agreed {
        _stream: Stream,
    },
}

/// The word of the peer.
enum HeardWord {
    None,
    /// The stream is open, and nothing has come on it.
    Reading(BoxFuture<'static, io::Result<(Stream, Leave)>>),
    /// It ends when the word is taken back.
    Heard(BoxFuture<'static, ()>),
}

impl DepartureHandler {
    pub(super) fn new(slots: ConnectionSlots) -> Self {
        Self {
            slots,
            own: OwnWord::None,
            heard: HeardWord::None,
            words: VecDeque::new(),
        }
    }

    fn poll_own(&mut self, cx: &mut Context<'_>) {
        let OwnWord::Said(saying) = &mut self.own else {
            return;
        };
        match saying.poll_unpin(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(stream)) => {
                self.own = OwnWord::Agreed { _stream: stream };
                self.words.push_back(Word::Agreed);
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "the peer keeps a connection that was to be left");
                self.own = OwnWord::None;
                self.slots.outbound.reopen();
                self.words.push_back(Word::Refused);
            }
        }
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) {
        if let HeardWord::Reading(reading) = &mut self.heard
            && let Poll::Ready(read) = reading.poll_unpin(cx)
        {
            self.heard = match read {
                Ok((stream, leave)) => {
                    self.slots.outbound.shut();
                    self.words.push_back(Word::Heard(leave));
                    HeardWord::Heard(agree(stream, self.slots.clone()).boxed())
                }
                Err(error) => {
                    tracing::debug!(%error, "a stream to leave the connection says nothing");
                    HeardWord::None
                }
            };
        }
        if let HeardWord::Heard(agreeing) = &mut self.heard
            && agreeing.poll_unpin(cx).is_ready()
        {
            self.heard = HeardWord::None;
            self.slots.outbound.reopen();
            self.words.push_back(Word::TakenBack);
        }
    }
}

impl ConnectionHandler for DepartureHandler {
    type FromBehaviour = Command;
    type ToBehaviour = Word;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(LEAVE_PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Word>> {
        self.poll_own(cx);
        self.poll_heard(cx);
        if let Some(word) = self.words.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(word));
        }
        if let OwnWord::Asked(leave) = self.own {
            self.own = OwnWord::Opening(leave);
            let upgrade = ReadyUpgrade::new(LEAVE_PROTOCOL);
            let protocol = SubstreamProtocol::new(upgrade, ()).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Leave(leave) => {
                self.slots.outbound.shut();
                self.own = OwnWord::Asked(leave);
            }
            Command::Stay => {
                self.own = OwnWord::None;
                self.heard = HeardWord::None;
                self.slots.outbound.reopen();
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            // A peer can say it as often as it likes; the last stream counts.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.heard = HeardWord::Reading(read_word(protocol).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                // It may have been taken back meanwhile; then the stream is dropped, and the peer hears nothing.
                if let OwnWord::Opening(leave) = self.own {
                    self.own = OwnWord::Said(say(protocol, leave, self.slots.clone()).boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(_) => {
                if matches!(mem::replace(&mut self.own, OwnWord::None), OwnWord::Opening(_)) {
                    self.words.push_back(Word::NotTold);
                }
            }
            _ => {}
        }
    }
}

/// Tells the peer that the connection is to be left, and that no stream for packets comes any more once those of this side
/// are over. Waits until the peer has read them, and has none of its own any more.
async fn say(mut stream: Stream, leave: Leave, slots: ConnectionSlots) -> io::Result<Stream> {
    stream.write_all(&[leave.to_byte()]).await?;
    stream.flush().await?;
    let (mut reader, mut writer) = stream.split();
    let ends = async {
        let n_opened = slots.outbound.all_over(0).await;
        writer.write_all(&n_opened.to_le_bytes()).await?;
        writer.flush().await
    };
    let mut n_theirs = [0; 8];
    let agreement = reader.read_exact(&mut n_theirs);
    try_join(ends, agreement).await?;
    slots.inbound.all_over(u64::from_le_bytes(n_theirs)).await;
    let stream = reader.reunite(writer);
    stream.map_err(|error| io::Error::other(error.to_string()))
}

/// Reads why the connection is to be left.
async fn read_word(mut stream: Stream) -> io::Result<(Stream, Leave)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    let leave = Leave::from_byte(byte[0]);
    let leave = leave.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((stream, leave))
}

/// Agrees to leave the connection once the streams for packets of both sides are over. Returns when the peer has taken its
/// word back.
async fn agree(stream: Stream, slots: ConnectionSlots) {
    let (mut reader, mut writer) = stream.split();
    let (tell, told) = oneshot::channel();
    let hear = async {
        let mut n_theirs = [0; 8];
        if reader.read_exact(&mut n_theirs).await.is_ok() {
            // It is waited for below.
            let _told = tell.send(u64::from_le_bytes(n_theirs));
            // Nothing comes any more but the end.
            let _end = reader.read(&mut n_theirs).await;
        }
    };
    let agree = async {
        let n_opened = slots.outbound.all_over(0).await;
        if let Ok(n_theirs) = told.await {
            slots.inbound.all_over(n_theirs).await;
            // An error says that the stream has ended, which is heard.
            let _ended = async {
                writer.write_all(&n_opened.to_le_bytes()).await?;
                writer.flush().await
            }
            .await;
        }
        pending::<()>().await;
    };
    select(pin!(hear), pin!(agree)).await;
    sleep(TAKEN_BACK_AFTER).await;
}
