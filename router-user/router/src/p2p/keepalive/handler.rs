//! The pings of one connection, sent and answered in the connection's task.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    ping,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Sign, schedule::Schedule};
use crate::p2p::{
    life::{Doubt, SignsOfLife},
    limits::LONGEST_SILENCE,
};

/// Length of a ping, and of its answer, which is the same bytes.
const PING_LEN: usize = 32;

/// How long nothing may come of a peer that was pinged; never less than some round trips, in which what is lost comes again, up to
/// [`LONGEST_SILENCE`].
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// How long nothing may come of a peer on a doubted connection that was pinged until it is silent; never less than some round
/// trips. One that stalls has shown already that nothing passes.
const SILENT_AFTER: Duration = Duration::from_millis(400);
const SILENT_AFTER_STALL: Duration = Duration::from_millis(200);

/// So many round trips.
const ROUND_TRIPS: u32 = 4;

/// Streams for pings that may fail in a row.
const MAX_FAILURES: u32 = 1;

type Pinging = BoxFuture<'static, io::Result<Stream>>;

/// Pings the other side of a connection, and answers its pings.
pub(in crate::p2p) struct KeepaliveHandler {
    life: Arc<SignsOfLife>,
    schedule: Schedule,
    outbound: Outbound,
    /// Answers the next ping of the peer.
    inbound: Option<Pinging>,
    /// Whether the peer has pinged since the schedule was last asked, and whether it ever has.
    was_pinged: bool,
    ever_pinged: bool,
    /// Whether the peer has pinged since this side did.
    pings_back: bool,
    n_failures: u32,
    /// The longest round trip of late pings; `None` before the first, which may take any time.
    rtt: Option<Duration>,
    doubt: Option<Doubt>,
    is_silent: bool,
    signs: VecDeque<Sign>,
    /// Made when it is first waited for, as it belongs to the runtime of the connection.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The stream for pings of this side.
enum Outbound {
    /// There is none.
    Closed,
    /// A stream is being negotiated.
    Opening,
    /// A stream is open.
    Open(Stream),
    /// A ping was sent.
    Pinging {
        answer: Pinging,
        sent: Instant,
        /// When the peer is taken for gone if nothing has come until then.
        until: Instant,
        /// When it is looked whether the peer is silent; `None` if there is no doubt.
        look_at: Option<Instant>,
    },
    /// The peer answers no pings, or is gone.
    Ended,
}

/// What follows from the schedule.
enum Planned {
    Nothing,
    /// A ping has been made, and is to be polled.
    Ping,
    /// A stream for pings is needed.
    Stream,
}

impl KeepaliveHandler {
    pub(super) fn new(life: Arc<SignsOfLife>, schedule: Schedule) -> Self {
        Self {
            life,
            schedule,
            outbound: Outbound::Closed,
            inbound: None,
            was_pinged: false,
            ever_pinged: false,
            pings_back: false,
            n_failures: 0,
            rtt: None,
            doubt: None,
            is_silent: false,
            signs: VecDeque::new(),
            timer: None,
        }
    }

    fn handle_peer_pings(&mut self) {
        self.was_pinged = true;
        self.pings_back = true;
        if !mem::replace(&mut self.ever_pinged, true) {
            self.signs.push_back(Sign::PeerPings);
        }
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) {
        while let Some(answering) = &mut self.inbound {
            match answering.poll_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(stream)) => {
                    self.handle_peer_pings();
                    self.inbound = Some(answer(stream).boxed());
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "the stream for the peer's pings has ended");
                    self.inbound = None;
                }
            }
        }
    }

    /// Says whether anything has come of the peer since this was last asked.
    fn hears(&mut self) -> bool {
        let pings_back = mem::take(&mut self.pings_back);
        self.life.take() || pings_back
    }

    fn send_ping(&mut self, stream: Stream, now: Instant) {
        // What came before says nothing of what comes after.
        self.hears();
        self.outbound = Outbound::Pinging {
            answer: exchange(stream).boxed(),
            sent: now,
            until: now + self.ping_timeout(),
            look_at: self.next_look(now),
        };
    }

    fn ping_timeout(&self) -> Duration {
        let rtt = self.rtt.unwrap_or_default();
        (rtt * ROUND_TRIPS).clamp(PING_TIMEOUT, LONGEST_SILENCE)
    }

    /// Returns until when something has to come of the peer if the connection is doubted.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let least = match self.doubt? {
            Doubt::Chance => SILENT_AFTER,
            Doubt::Stall => SILENT_AFTER_STALL,
        };
        Some(now + least.max(self.rtt? * ROUND_TRIPS))
    }

    /// Has the connection pinged at once, or, if it is being pinged, looked at soon.
    fn handle_doubt(&mut self, doubt: Doubt, now: Instant) {
        self.doubt = self.doubt.max(Some(doubt));
        // What came before says nothing of what comes after.
        self.hears();
        let next_look = self.next_look(now);
        match &mut self.outbound {
            Outbound::Pinging { look_at, .. } => {
                *look_at = (*look_at).into_iter().chain(next_look).min();
            }
            _ => self.schedule.handle_doubt(now),
        }
    }

    fn set_silent(&mut self, silent: Option<Instant>) {
        match silent {
            Some(since) if !self.is_silent => self.signs.push_back(Sign::Silent { since }),
            None if self.is_silent => self.signs.push_back(Sign::Heard),
            _ => {}
        }
        self.is_silent = silent.is_some();
    }

    fn handle_failure(&mut self, failure: ping::Failure) {
        self.n_failures += 1;
        self.outbound = Outbound::Closed;
        self.schedule.handle_wake(Instant::now());
        if self.n_failures > MAX_FAILURES {
            self.give_up(failure);
        }
    }

    fn give_up(&mut self, failure: ping::Failure) {
        self.outbound = Outbound::Ended;
        self.signs.push_back(Sign::Ping(Err(failure)));
    }

    /// Lets a ping that was sent go on.
    fn poll_answer(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Outbound::Pinging {
            answer,
            sent,
            until,
            look_at,
        } = &mut self.outbound
        else {
            return;
        };
        match answer.poll_unpin(cx) {
            Poll::Ready(Ok(stream)) => {
                let rtt = now.saturating_duration_since(*sent);
                self.n_failures = 0;
                let before = self.rtt.unwrap_or_default();
                self.rtt = Some(rtt.max(before * 7 / 8));
                self.doubt = None;
                self.outbound = Outbound::Open(stream);
                self.set_silent(None);
                self.signs.push_back(Sign::Ping(Ok(rtt)));
            }
            Poll::Ready(Err(error)) => self.handle_failure(ping::Failure::Other {
                error: Box::new(error),
            }),
            Poll::Pending if now < look_at.map_or(*until, |look_at| look_at.min(*until)) => {}
            Poll::Pending => {
                let (sent, is_over) = (*sent, now >= *until);
                let is_heard = self.hears();
                let (next_look, timeout) = (self.next_look(now), self.ping_timeout());
                let Outbound::Pinging { until, look_at, .. } = &mut self.outbound else {
                    return;
                };
                *look_at = next_look;
                if is_heard {
                    // A busy connection answers late.
                    *until = now + timeout;
                    self.set_silent(None);
                } else if is_over {
                    self.give_up(ping::Failure::Timeout);
                } else if next_look.is_some() {
                    self.set_silent(Some(sent));
                }
            }
        }
    }

    /// Pings if it is time to.
    fn poll_schedule(&mut self, now: Instant) -> Planned {
        if self.schedule.due().is_some_and(|due| due > now) {
            return Planned::Nothing;
        }
        let was_pinged = mem::take(&mut self.was_pinged);
        if !self.schedule.handle_due(self.life.n_uses(), was_pinged, now) {
            return Planned::Nothing;
        }
        match mem::replace(&mut self.outbound, Outbound::Ended) {
            Outbound::Open(stream) => {
                self.send_ping(stream, now);
                Planned::Ping
            }
            Outbound::Closed => {
                self.outbound = Outbound::Opening;
                Planned::Stream
            }
            other => {
                self.outbound = other;
                Planned::Nothing
            }
        }
    }

    /// Asks to be polled when something is due. Returns false if that is now.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let planned = self.schedule.due();
        let next = match &self.outbound {
            Outbound::Pinging { until, look_at, .. } => {
                let look_at = look_at.unwrap_or(*until);
                planned.map(|planned| planned.min(*until).min(look_at))
            }
            Outbound::Ended => return true,
            _ => planned,
        };
        let Some(next) = next.filter(|next| *next > now) else {
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}

impl ConnectionHandler for KeepaliveHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Sign;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Sign>> {
        loop {
            let now = Instant::now();
            self.poll_inbound(cx);
            self.poll_answer(cx, now);
            if let Some(sign) = self.signs.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(sign));
            }
            if let Some(doubt) = self.life.poll_wake(self.schedule.rests(), cx) {
                self.handle_doubt(doubt, now);
            } else if self.schedule.rests() && self.schedule.is_used(self.life.n_uses()) {
                self.schedule.handle_wake(now);
            }
            match self.poll_schedule(now) {
                Planned::Nothing => {}
                // It is sent as it is polled.
                Planned::Ping => continue,
                Planned::Stream => {
                    let upgrade = ReadyUpgrade::new(ping::PROTOCOL_NAME);
                    let protocol = SubstreamProtocol::new(upgrade, ()).with_timeout(PING_TIMEOUT);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
            }
            if self.wait(cx, now) {
                return Poll::Pending;
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.handle_peer_pings();
                self.inbound = Some(answer(protocol).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.send_ping(protocol, Instant::now());
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => match error {
                StreamUpgradeError::NegotiationFailed => self.give_up(ping::Failure::Unsupported),
                StreamUpgradeError::Timeout if self.hears() => self.outbound = Outbound::Closed,
                StreamUpgradeError::Timeout => self.give_up(ping::Failure::Timeout),
                StreamUpgradeError::Io(error) => self.handle_failure(ping::Failure::Other {
                    error: Box::new(error),
                }),
                StreamUpgradeError::Apply(never) => match never {},
            },
            _ => {}
        }
    }
}

/// Sends a ping and waits for its answer.
async fn exchange(mut stream: Stream) -> io::Result<Stream> {
    let sent: [u8; PING_LEN] = rand::random();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut answer = [0; PING_LEN];
    stream.read_exact(&mut answer).await?;
    if answer == sent {
        Ok(stream)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer to a ping is another one's",
        ))
    }
}

/// Waits for a ping and answers it.
async fn answer(mut stream: Stream) -> io::Result<Stream> {
    let mut ping = [0; PING_LEN];
    stream.read_exact(&mut ping).await?;
    stream.write_all(&ping).await?;
    stream.flush().await?;
    Ok(stream)
}
