//! Has the router before the host forward the node's ports, so that peers can dial it behind a NAT.
//!
//! 1. [`uplink`] says which gateway that is, and for which ports it is asked; nothing is sent for that. A host with a public
//!    address asks nobody.
//! 2. [`mod@ask`] asks it by PCP, NAT-PMP ([`datagrams`]) or UPnP ([`upnp`]), whichever it answers first.
//! 3. The addresses outside are given to the network, which tells peers of them, and to [`MappingBoard`] for operators.
//! 4. [`pace`] says when it is asked again: at half of the time that it forwards for, and ever more rarely while it does not.
//!    It is asked at once when another gateway or another address takes the place of this one, and when it says that it has
//!    started anew ([`announcements`]).
//! 5. At the end it is told that it need not forward any more.
//!
//! Nothing goes into the tunnel, and nobody but the gateway is listened to. It can give an address that is of no use, which
//! members are told of; the node dials nothing that it says.

mod announcements;
mod ask;
mod board;
mod datagrams;
mod nat;
mod pace;
mod terms;
mod uplink;
mod upnp;

use std::sync::Arc;
use std::time::Duration;

pub(super) use crab_nat::pcp::Nonce;
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::PortMappingState;
use crate::device::{HostChange, HostChanges, Netlink, NetlinkError};
use announcements::Announcements;
use ask::{AskError, Asked, Mapping, Question, ask};
pub(super) use board::MappingBoard;
use pace::Pace;
use stream_router::p2p::{Keypair, NetworkHandle};
use terms::LIFETIME;
use uplink::{NotAsked, Wanted};

/// Pause from a change of the host to a look at it: most changes are several, and the network listens at new addresses a
/// moment later.
const SETTLE: Duration = Duration::from_secs(1);

/// The shortest time from one asking to the next that an announcement brings about. A gateway that starts announces it
/// several times.
const SPACING: Duration = Duration::from_secs(5);

/// How long a gateway may take for all its answers.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How long a stop waits for answers that are on their way, and then for the gateway to take the ports back.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// Asks the gateway.
pub(super) struct PortMapper {
    network: NetworkHandle,
    netlink: Netlink,
    device: u32,
    nonce: Nonce,
    board: Arc<MappingBoard>,
    changed: Arc<Notify>,
    _changes: HostChanges,
    pace: Pace,
    /// What the gateway was asked for.
    wanted: Option<Wanted>,
    mapped: Vec<Mapping>,
    announcements: Option<Announcements>,
    asked_at: Option<Instant>,
    due: Option<Instant>,
}

impl PortMapper {
    /// Prepares for a node with this device; nobody is asked yet.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(super) fn new(
        network: NetworkHandle,
        nonce: Nonce,
        device: u32,
        board: Arc<MappingBoard>,
    ) -> Result<Self, NetlinkError> {
        let changed = Arc::new(Notify::new());
        let told = changed.clone();
        let changes = HostChanges::subscribe(move |change| {
            if is_of_uplink(change, device) {
                told.notify_one();
            }
        })?;
        board.set_state(PortMappingState::Asking, None, None);
        Ok(Self {
            network,
            netlink: Netlink::open_filtering()?,
            device,
            nonce,
            board,
            changed,
            _changes: changes,
            pace: Pace::default(),
            wanted: None,
            mapped: Vec::new(),
            announcements: None,
            asked_at: None,
            due: None,
        })
    }

    /// Has ports forwarded until `stop`, and gives them back.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // The network is told of its own addresses a moment after it has begun to listen.
        self.due = Some(Instant::now() + SETTLE);
        while stop.run_until_cancelled(self.wait()).await.is_some() {
            // What is being given meanwhile is to be given back, too.
            let patience = async {
                stop.cancelled().await;
                sleep(REMOVE_LIMIT).await;
            };
            tokio::select! {
                () = self.look() => {}
                () = patience => break,
            }
        }
        self.remove_all().await;
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let due = self.due;
        let announced = async {
            match &mut self.announcements {
                Some(announcements) => announcements.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.changed.notified() => sleep(SETTLE).await,
            () = announced => {
                let earliest = self.asked_at.map_or_else(Instant::now, |asked| asked + SPACING);
                self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
                sleep_until(earliest).await;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }

    /// Looks which gateway is to be asked, and asks it if that is due.
    async fn look(&mut self) {
        match Wanted::look(&self.netlink, self.device, &self.network.listening()).await {
            Ok(wanted) if self.wanted.as_ref() == Some(&wanted) => {
                if self.due.is_some_and(|due| due <= Instant::now()) {
                    self.ask(&wanted).await;
                }
            }
            Ok(wanted) => {
                self.forget().await;
                let gateway = Some(wanted.uplink.gateway);
                self.board.set_state(PortMappingState::Asking, gateway, None);
                self.pace.restart();
                self.announcements = Some(Announcements::of(&wanted.uplink));
                self.wanted = Some(wanted.clone());
                self.ask(&wanted).await;
            }
            Err(why) => {
                self.forget().await;
                self.handle_not_asked(&why);
            }
        }
    }

    /// Takes in that nobody is to be asked; a change of the host or of the addresses may change that.
    fn handle_not_asked(&mut self, why: &NotAsked) {
        self.due = match why {
            // The network may listen at a new address any moment. Nothing is sent for a look.
            NotAsked::NotListening(_) | NotAsked::Netlink(_) => {
                Some(Instant::now() + self.pace.after_failure())
            }
            NotAsked::Public(_) | NotAsked::NoGateway | NotAsked::OtherWay(_) | NotAsked::NoWay(..) => None,
        };
        let state = match why {
            NotAsked::Public(_) => PortMappingState::Public,
            _ => PortMappingState::NoGateway,
        };
        let why = why.to_string();
        if self.board.set_state(state, None, Some(why.clone())) {
            info!(why, "no gateway is asked to forward ports");
        }
    }

    /// Has the ports forwarded, for as long again if they are already.
    async fn ask(&mut self, wanted: &Wanted) {
        self.asked_at = Some(Instant::now());
        let question = Question {
            uplink: &wanted.uplink,
            nonce: self.nonce,
            before: &self.mapped,
        };
        let asked = timeout(ASK_LIMIT, ask(question, &wanted.ports)).await;
        let asked = asked
            .unwrap_or_else(|_elapsed| Err(AskError::Unanswered("it does not answer in time".to_owned())));
        match asked {
            Ok(Asked { mappings, missing }) => {
                self.mapped = mappings;
                self.handle_mapped(wanted, missing).await;
            }
            Err(error) => self.handle_failure(wanted, &error).await,
        }
    }

    async fn handle_mapped(&mut self, wanted: &Wanted, missing: Option<String>) {
        let now = std::time::Instant::now();
        let lifetimes = self.mapped.iter().map(|mapping| {
            let expires = mapping.outside.expires;
            expires.map_or(LIFETIME, |expires| expires.saturating_duration_since(now))
        });
        let pause = self.pace.after_success(lifetimes.min().unwrap_or(LIFETIME));
        self.due = Some(Instant::now() + pause);
        if let Some(missing) = &missing {
            warn!(missing, "the gateway does not forward all ports");
        }
        if self
            .board
            .set_mapped(wanted.uplink.gateway, &self.mapped, missing)
        {
            for mapping in &self.mapped {
                info!(
                    address = %mapping.address(),
                    to = %mapping.port,
                    gateway = %wanted.uplink.gateway,
                    protocol = %mapping.protocol(),
                    "the gateway forwards to this node"
                );
            }
        }
        self.tell_network().await;
    }

    async fn handle_failure(&mut self, wanted: &Wanted, error: &AskError) {
        self.due = Some(Instant::now() + self.pace.after_failure());
        // What was not renewed may stand until its time is over; but who says no has forgotten it.
        let now = std::time::Instant::now();
        match error {
            AskError::Unanswered(_) => self.mapped.retain(|mapping| {
                let expires = mapping.outside.expires;
                expires.is_none_or(|expires| expires > now)
            }),
            AskError::Refused { .. } | AskError::DoubleNat { .. } => self.mapped.clear(),
        }
        let gateway = wanted.uplink.gateway;
        let is_news = if self.mapped.is_empty() {
            let state = match error {
                AskError::Unanswered(_) => PortMappingState::Unanswered,
                AskError::Refused { .. } => PortMappingState::Refused,
                AskError::DoubleNat { .. } => PortMappingState::DoubleNat,
            };
            self.board
                .set_state(state, Some(gateway), Some(error.to_string()))
        } else {
            let detail = Some(format!("not renewed: {error}"));
            self.board.set_mapped(gateway, &self.mapped, detail)
        };
        if is_news {
            warn!(%gateway, %error, "the gateway does not forward to this node; asking again ever more rarely");
        }
        self.tell_network().await;
    }

    async fn tell_network(&self) {
        let addresses = self.mapped.iter().map(Mapping::address).collect();
        self.network.set_mapped(addresses).await;
    }

    /// Forgets what a gateway forwards that is not before the host any more, or not at this address.
    async fn forget(&mut self) {
        self.wanted = None;
        self.announcements = None;
        if !self.mapped.is_empty() {
            self.mapped.clear();
            self.tell_network().await;
        }
    }

    async fn remove_all(self) {
        let removed = join_all(self.mapped.into_iter().map(Mapping::remove));
        if timeout(REMOVE_LIMIT, removed).await.is_err() {
            warn!(
                ?REMOVE_LIMIT,
                ?LIFETIME,
                "the gateway does not answer; it may forward until that time is over"
            );
        }
    }
}

/// Returns the number by which gateways know mappings of PCP of this node: nobody else does, and it stays the same.
pub(super) fn nonce(keypair: &Keypair) -> Nonce {
    let secret = keypair.derive_secret(b"stream-router port mapping");
    // Only keys of other kinds than those of nodes have none.
    let bytes = secret.unwrap_or_else(rand::random);
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8)]
}

/// Says whether a change can be one of the way to the gateway.
fn is_of_uplink(change: HostChange, device: u32) -> bool {
    match change {
        HostChange::Interface { index, .. } => index != device,
        HostChange::Route { output } => output != Some(device),
        HostChange::Anything => true,
        HostChange::Other => false,
    }
}
