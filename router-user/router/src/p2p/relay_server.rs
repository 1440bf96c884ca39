//! What a node relays for its peers, and the bounds of it: circuit relay v2 of libp2p.
//!
//! A request is read, decided and answered in a task of its own, `hop.rs`; the behaviour decides, one after the other, by what
//! stands in its [`Ledger`]. A circuit is two tasks, `carry.rs`, which wait where there is a rate, `rates.rs`.

mod buffer;
mod carry;
mod handler;
mod hop;
mod ledger;
mod message;
mod rates;

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    circuit::Circuit as CircuitAddress,
    config::{RelayRates, ServeConfig},
    state::NetworkState,
};
use handler::RelayHandler;
use hop::{Allowed, HandOver, Office, Place, Word};
use ledger::{Circuit, CircuitId, End, Ledger, Standing};
use message::Status;
use rates::Rates;

/// Words of requests that may wait to be decided; the tasks of more wait.
const MAX_WORDS: usize = 64;

/// Relays for configured peers.
pub(super) struct RelayServer {
    local_peer: PeerId,
    office: Arc<Office>,
    words: mpsc::Receiver<Word>,
    ledger: Ledger,
    /// The circuits that are over, with room for all.
    ended: mpsc::Receiver<CircuitId>,
    end: mpsc::Sender<CircuitId>,
    rates: Rates,
    /// Where this node listens, as reservations say it.
    addresses: Vec<Multiaddr>,
    /// No request is decided while something waits.
    pending: VecDeque<ToSwarm<relay::Event, Either<HandOver, Infallible>>>,
}

impl RelayServer {
    pub(super) fn new(local_peer: PeerId, config: ServeConfig, state: Arc<NetworkState>) -> Self {
        let (word, words) = mpsc::channel(MAX_WORDS);
        let (end, ended) = mpsc::channel(config.max_circuits.max(1));
        let served = state.served();
        Self {
            local_peer,
            office: Arc::new(Office {
                words: word,
                state,
                served,
            }),
            words,
            ledger: Ledger::new(config),
            ended,
            end,
            rates: Rates::new(config.rates),
            addresses: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// Has reservations say that the relay is at these addresses: a stock client takes none that says no address.
    pub(super) fn set_addresses(&mut self, addresses: impl IntoIterator<Item = Multiaddr>) {
        let own = Protocol::P2p(self.local_peer);
        let addresses = addresses.into_iter();
        self.addresses = addresses.map(|address| address.with(own.clone())).collect();
    }

    /// Has circuits keep other rates from now on.
    pub(super) fn set_rates(&mut self, rates: RelayRates) {
        self.rates.set(rates);
    }

    fn handler(&self, end: End, address: &Multiaddr) -> THandler<Self> {
        match CircuitAddress::of(address) {
            // Nothing is relayed to a peer that is reached through a relay itself.
            Some(_) => Either::Right(dummy::ConnectionHandler),
            None => Either::Left(RelayHandler::new(end, Arc::clone(&self.office))),
        }
    }

    fn handle_word(&mut self, word: Word) {
        let now = Instant::now();
        for peer in self.ledger.expire(now) {
            self.report(relay::Event::ReservationTimedOut { src_peer_id: peer });
            self.show();
        }
        match word {
            Word::Reserve(from, reply) => {
                let answer = self.reserve(from, now);
                // An error says that the peer has gone meanwhile.
                let _gone = reply.send(answer);
            }
            Word::Connect(from, to, reply) => {
                let answer = self.connect(from, to);
                if let Err(status) = &answer {
                    self.report_refused(Circuit { from: from.0, to }, *status);
                }
                let _gone = reply.send(answer);
            }
            Word::Begun(circuit, Status::Ok) => self.report(relay::Event::CircuitReqAccepted {
                src_peer_id: circuit.from,
                dst_peer_id: circuit.to,
            }),
            Word::Begun(circuit, status) => self.report_refused(circuit, status),
        }
    }

    fn reserve(&mut self, from: End, now: Instant) -> Result<Vec<Multiaddr>, Status> {
        let src_peer_id = from.0;
        let place = match self.office.state.is_configured(src_peer_id) {
            true => self.ledger.reserve(from, now),
            false => Err(Status::PermissionDenied),
        };
        self.report(match place {
            Ok(renewed) => relay::Event::ReservationReqAccepted { src_peer_id, renewed },
            Err(status) => relay::Event::ReservationReqDenied {
                src_peer_id,
                status: status.into(),
            },
        });
        self.show();
        place.map(|_renewed| self.addresses.clone())
    }

    fn connect(&mut self, near: End, to: PeerId) -> Result<Allowed, Status> {
        let from = near.0;
        if ![from, to]
            .iter()
            .all(|peer| self.office.state.is_configured(*peer))
        {
            return Err(Status::PermissionDenied);
        }
        let Standing { id, far, over } = self.ledger.connect(near, to)?;
        self.show();
        let (taken, taking) = oneshot::channel();
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: to,
            handler: NotifyHandler::One(far),
            event: Either::Left(HandOver { from, taken }),
        });
        Ok(Allowed {
            place: Place {
                id,
                circuit: Circuit { from, to },
                ended: self.end.clone(),
            },
            gates: self.rates.between(from, to),
            far: taking,
            over,
        })
    }

    fn handle_ended(&mut self, id: CircuitId) {
        if let Some(Circuit { from, to }) = self.ledger.remove(id) {
            self.show();
            self.report(relay::Event::CircuitClosed {
                src_peer_id: from,
                dst_peer_id: to,
                error: None,
            });
        }
    }

    fn report_refused(&mut self, circuit: Circuit, status: Status) {
        self.report(relay::Event::CircuitReqDenied {
            src_peer_id: circuit.from,
            dst_peer_id: circuit.to,
            status: status.into(),
        });
    }

    fn show(&self) {
        let (n_reservations, n_circuits) = (self.ledger.n_reservations(), self.ledger.n_circuits());
        self.office.served.show(n_reservations, n_circuits);
    }

    fn report(&mut self, event: relay::Event) {
        self.pending.push_back(ToSwarm::GenerateEvent(event));
    }
}

impl NetworkBehaviour for RelayServer {
    type ConnectionHandler = Either<RelayHandler, dummy::ConnectionHandler>;
    /// The stock server's, which libp2p's metrics know.
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler((peer, connection), remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler((peer, connection), address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.ledger.open((established.peer_id, established.connection_id));
            }
            FromSwarm::ConnectionClosed(closed) => {
                let src_peer_id = closed.peer_id;
                if self.ledger.close((src_peer_id, closed.connection_id)) {
                    self.show();
                    self.report(relay::Event::ReservationClosed { src_peer_id });
                }
                if closed.remaining_established == 0 {
                    self.rates.remove(src_peer_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(never) | Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Poll::Ready(event);
            }
            // First what makes room.
            if let Poll::Ready(Some(id)) = self.ended.poll_recv(cx) {
                self.handle_ended(id);
            } else if let Poll::Ready(Some(word)) = self.words.poll_recv(cx) {
                self.handle_word(word);
            } else {
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayServer")
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}
