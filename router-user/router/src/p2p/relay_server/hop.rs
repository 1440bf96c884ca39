//! A request of a peer, from its stream to the answer, in a task of its own.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    carry::{self, CircuitEnd},
    ledger::{Circuit, CircuitId, End, RESERVATION_TIME},
    message::{self, HopMessage, Request, Status, StopMessage},
    rates::Gates,
};
use crate::p2p::{length_delimited, limits::OPEN_TIMEOUT, reach::Served, state::NetworkState};

/// How long the far end of a circuit may take, from the decision to open a stream to it.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the tasks of requests tell the behaviour.
#[derive(Debug)]
pub(super) enum Word {
    /// A peer asks for a place, and is answered with the addresses of the relay.
    Reserve(End, oneshot::Sender<Result<Vec<Multiaddr>, Status>>),
    /// A peer asks for a circuit to another.
    Connect(End, PeerId, oneshot::Sender<Result<Allowed, Status>>),
    /// A circuit that was allowed has begun, or will not.
    Begun(Circuit, Status),
}

/// A circuit that is allowed, and that the far end is asked to take.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) place: Place,
    pub(super) gates: Gates,
    /// The far end, once it has taken it; closed if the connection to it has ended.
    pub(super) far: oneshot::Receiver<Result<CircuitEnd<Stream>, Status>>,
    /// Says that a connection has ended.
    pub(super) over: CancellationToken,
}

/// A circuit among those that there may be. The behaviour hears when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: CircuitId,
    pub(super) circuit: Circuit,
    /// Has room for the end of every circuit.
    pub(super) ended: mpsc::Sender<CircuitId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // An error says that the behaviour is gone, and all that it counts.
        let _gone = self.ended.try_send(self.id);
    }
}

/// Where the tasks of requests have them decided.
pub(super) struct Office {
    pub(super) words: mpsc::Sender<Word>,
    pub(super) state: Arc<NetworkState>,
    pub(super) served: Arc<Served>,
}

impl Office {
    /// Serves a request.
    pub(super) async fn serve(&self, from: End, mut stream: Stream) {
        let peer = from.0;
        let request = match timeout(OPEN_TIMEOUT, read(&mut stream)).await {
            Ok(Ok(request)) => request,
            Ok(Err(status)) => {
                self.count_unreadable();
                tracing::debug!(%peer, ?status, "a request to relay cannot be read");
                if let Some(status) = status {
                    finish(stream, &HopMessage::end(status)).await;
                }
                return;
            }
            Err(_elapsed) => {
                self.count_unreadable();
                tracing::debug!(%peer, "a peer does not say what it asks of the relay");
                return;
            }
        };
        match request {
            Request::Reserve => {
                let answer = match self.ask(|reply| Word::Reserve(from, reply)).await {
                    Ok(addresses) => HopMessage::reserved(expiry(), &addresses),
                    Err(status) => HopMessage::end(status),
                };
                finish(stream, &answer).await;
            }
            Request::Connect(to) => {
                let allowed = self.ask(|reply| Word::Connect(from, to, reply)).await;
                match allowed {
                    Ok(allowed) => self.connect(stream, allowed).await,
                    Err(status) => finish(stream, &HopMessage::end(status)).await,
                }
            }
        }
    }

    /// Begins a circuit once its far end has taken it.
    async fn connect(&self, mut stream: Stream, allowed: Allowed) {
        let Allowed {
            place,
            gates,
            far,
            over,
        } = allowed;
        let far = match timeout(HAND_OVER_TIMEOUT, far).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_closed)) => Err(Status::ConnectionFailed),
            Err(_elapsed) => Err(Status::ConnectionFailed),
        };
        let (status, begun) = match far {
            Err(status) => {
                finish(stream, &HopMessage::end(status)).await;
                (status, None)
            }
            Ok(far) => {
                let answer = HopMessage::end(Status::Ok);
                match timeout(OPEN_TIMEOUT, length_delimited::write(&mut stream, &answer)).await {
                    Ok(Ok(())) => (Status::Ok, Some((stream, far))),
                    end => {
                        tracing::debug!(?end, "the peer that has asked for a circuit does not take it");
                        (Status::ConnectionFailed, None)
                    }
                }
            }
        };
        // An error says that the behaviour is gone, and so are the connections.
        let _gone = self.words.send(Word::Begun(place.circuit, status)).await;
        if let Some((stream, far)) = begun {
            let runtime = Handle::current();
            let near = CircuitEnd { stream, runtime };
            carry::spawn([near, far], &gates, &self.served, over, place);
        }
    }

    /// Has the behaviour decide.
    async fn ask<T>(
        &self,
        word: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Word,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        // Errors say that the network ends.
        let _ended = self.words.send(word(reply)).await;
        answer.await.unwrap_or(Err(Status::ConnectionFailed))
    }

    fn count_unreadable(&self) {
        let counters = &self.state.counters;
        counters.relay_requests_refused.fetch_add(1, Relaxed);
    }
}

/// A circuit that is to be handed over to its far end.
#[derive(Debug)]
pub(in crate::p2p) struct HandOver {
    pub(super) from: PeerId,
    pub(super) taken: oneshot::Sender<Result<CircuitEnd<Stream>, Status>>,
}

impl HandOver {
    /// Asks the far end, on a stream to it.
    pub(super) async fn run(self, mut stream: Stream) {
        let asked = timeout(HAND_OVER_TIMEOUT, hand_over(&mut stream, self.from)).await;
        let runtime = Handle::current();
        let taken = asked.unwrap_or(Err(Status::ConnectionFailed));
        self.end(taken.map(|()| CircuitEnd { stream, runtime }));
    }

    pub(super) fn end(self, taken: Result<CircuitEnd<Stream>, Status>) {
        // An error says that nobody waits any more: the stream is dropped, which the far end hears.
        let _late = self.taken.send(taken);
    }
}

async fn hand_over(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), from: PeerId) -> Result<(), Status> {
    let asked = length_delimited::write(stream, &StopMessage::connect(from)).await;
    asked.map_err(failed)?;
    let answer: StopMessage = length_delimited::read(stream).await.map_err(failed)?;
    answer.answer()
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: io::Error) -> Status {
    tracing::debug!(%error, "a circuit cannot be handed over");
    Status::ConnectionFailed
}

/// Reads a request; an error says how it ends, if there is somebody to hear it.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Option<Status>> {
    match length_delimited::read::<HopMessage>(stream).await {
        Ok(message) => message.request().map_err(Some),
        Err(error) => Err(message::unreadable(&error)),
    }
}

/// Answers, and closes.
async fn finish(mut stream: Stream, answer: &HopMessage) {
    let answering = async {
        length_delimited::write(&mut stream, answer).await?;
        stream.close().await
    };
    let end = timeout(OPEN_TIMEOUT, answering).await;
    if !matches!(end, Ok(Ok(()))) {
        tracing::debug!(?end, "a peer does not wait for the answer of the relay");
    }
}

/// When a reservation of now ends, in seconds since 1970.
fn expiry() -> u64 {
    let ends = SystemTime::now() + RESERVATION_TIME;
    let since = ends.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
