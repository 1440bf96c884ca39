//! Runs the operator's commands as the node and its peers come and go: one after the other, in the order of what happened,
//! beside everything else.

mod process;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::peers::ConfiguredPeer;
use crate::config::{Config, HooksSection};
use crate::spans::Spans;
use process::Ended;
use router_common::peer::MAX_PEERS;
use stream_router::p2p::PeerId;

/// How long a command may take. A stop of the service has twice the time.
const LIMIT: Duration = Duration::from_secs(10);

/// Events that may wait: every peer can come and go.
const MAX_WAITING: usize = 2 * MAX_PEERS as usize;

/// Networks that a variable holds: the kernel takes 128 KiB, and a network has up to 44 bytes.
const MAX_NETWORKS: usize = 2048;

/// What has happened.
#[derive(Clone, Debug)]
enum HookEvent {
    Up,
    Down,
    PeerUp(Arc<HookPeer>),
    PeerDown(Arc<HookPeer>),
}

/// A peer as it was when its connection came.
#[derive(Debug)]
pub(super) struct HookPeer {
    id: PeerId,
    name: Option<String>,
    allowed_ips: Vec<IpNet>,
}

impl HookPeer {
    /// Takes down who a peer is.
    pub(super) fn of(configured: &ConfiguredPeer) -> Arc<Self> {
        Arc::new(Self {
            id: configured.peer.id,
            name: configured.name.clone(),
            allowed_ips: configured.allowed_ips.clone(),
        })
    }

    /// Returns the name that it had.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Where events of peers are told. It never waits.
#[derive(Debug)]
pub(super) struct PeerEvents(mpsc::Sender<HookEvent>);

impl PeerEvents {
    /// Tells that a peer has a connection, or has none any more.
    pub(super) fn tell(&self, peer: &Arc<HookPeer>, is_connected: bool) {
        let event = match is_connected {
            true => HookEvent::PeerUp(peer.clone()),
            false => HookEvent::PeerDown(peer.clone()),
        };
        if let Err(mpsc::error::TrySendError::Full(event)) = self.0.try_send(event) {
            warn!(
                event = event.name(),
                MAX_WAITING, "too many events wait for their hooks: this one has none"
            );
        }
    }
}

/// Runs the commands.
pub(super) struct Hooks {
    section: HooksSection,
    /// What every command is told.
    device: Vec<(&'static str, String)>,
    events: mpsc::Receiver<HookEvent>,
    limit: Duration,
    spans: Spans,
}

impl Hooks {
    /// Makes the commands of a configuration, and the way to tell of peers.
    pub(super) fn new(config: &Config, spans: Spans) -> (Self, PeerEvents) {
        let (sender, events) = mpsc::channel(MAX_WAITING);
        let addresses = config.device().addresses();
        let hooks = Self {
            section: config.hooks().clone(),
            device: vec![
                ("STREAM_ROUTER_DEVICE", config.device().name().to_owned()),
                ("STREAM_ROUTER_DEVICE_ADDRESSES", words(addresses)),
            ],
            events,
            limit: LIMIT,
            spans,
        };
        (hooks, PeerEvents(sender))
    }

    /// Runs the command for the node's start, then those for its peers until `stop` is cancelled, and then the one for its
    /// stop. Whatever runs or waits as `stop` is cancelled is left out, so that the stop waits for one command at most.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut next = Some(HookEvent::Up);
        while let Some(event) = next {
            tokio::select! {
                biased;
                // The command that runs is killed as it is dropped.
                () = stop.cancelled() => break,
                () = self.handle(&event) => {}
            }
            next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                event = self.events.recv() => event,
            };
        }
        stop.cancelled().await;
        self.handle(&HookEvent::Down).await;
    }

    async fn handle(&self, event: &HookEvent) {
        let command = match event {
            HookEvent::Up => self.section.up(),
            HookEvent::Down => self.section.down(),
            HookEvent::PeerUp(_) => self.section.peer_up(),
            HookEvent::PeerDown(_) => self.section.peer_down(),
        };
        if command.is_empty() {
            return;
        }
        let name = event.name();
        let mut environment = self.device.clone();
        environment.extend(event.environment());
        let mut span = self.spans.begin("hook.run");
        span.set("stream_router.hook", name);
        if let Some(peer) = event.peer() {
            span.set("stream_router.peer.id", peer.id);
        }
        let (output, ended) = process::run(command, &environment, self.limit).await;
        for line in output.lines() {
            info!(hook = name, output = ?line, "a hook says");
        }
        match ended {
            Ended::Done(status) if status.success() => {}
            Ended::Done(status) => {
                span.fail(status);
                warn!(hook = name, %status, "a hook has failed");
            }
            Ended::Killed => {
                span.fail("it was not done in time");
                warn!(hook = name, limit = ?self.limit, "a hook was not done in time, and was killed");
            }
            Ended::Failed(error) => {
                span.fail(&error);
                warn!(
                    hook = name,
                    error = &error as &dyn std::error::Error,
                    "a hook cannot be run"
                );
            }
        }
    }
}

impl HookEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::PeerUp(_) => "peer_up",
            Self::PeerDown(_) => "peer_down",
        }
    }

    fn peer(&self) -> Option<&HookPeer> {
        match self {
            Self::Up | Self::Down => None,
            Self::PeerUp(peer) | Self::PeerDown(peer) => Some(peer),
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![("STREAM_ROUTER_EVENT", self.name().to_owned())];
        if let Some(peer) = self.peer() {
            environment.push(("STREAM_ROUTER_PEER_ID", peer.id.to_string()));
            environment.push(("STREAM_ROUTER_PEER_NAME", peer.name.clone().unwrap_or_default()));
            environment.push(("STREAM_ROUTER_PEER_ALLOWED_IPS", words(&peer.allowed_ips)));
        }
        environment
    }
}

fn words(nets: &[IpNet]) -> String {
    let nets = nets.iter().take(MAX_NETWORKS);
    nets.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use xtask::lab::ScratchDir;

    fn hooks(scratch: &ScratchDir, scripts: &[(&str, &str)]) -> (Hooks, PeerEvents) {
        let mut text =
            "[device]\nname = 'sr7'\naddresses = ['10.42.0.1/24', 'fd42::1/64']\n[hooks]\n".to_owned();
        for (hook, script) in scripts {
            let told = scratch.path().join("told");
            let script = format!("exec >>{}; {script}", told.display());
            text += &format!("{hook} = ['/bin/sh', '-c', {script:?}]\n");
        }
        Hooks::new(
            &Config::parse(&text, Path::new("sr.toml")).unwrap(),
            Spans::default(),
        )
    }

    fn peer(name: &str) -> Arc<HookPeer> {
        Arc::new(HookPeer {
            id: PeerId::random(),
            name: Some(name.to_owned()),
            allowed_ips: vec!["10.42.0.2/32".parse().unwrap(), "fd42::2/128".parse().unwrap()],
        })
    }

    async fn until_told(scratch: &ScratchDir, what: &str) {
        let told = || fs::read_to_string(scratch.path().join("told")).unwrap_or_default();
        while !told().contains(what) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn every_event_is_told_in_its_order_with_who_it_is_about() {
        let scratch = ScratchDir::unique("hooks").unwrap();
        let say = "echo $STREAM_ROUTER_EVENT $STREAM_ROUTER_DEVICE $STREAM_ROUTER_DEVICE_ADDRESSES \
                   $STREAM_ROUTER_PEER_NAME $STREAM_ROUTER_PEER_ID $STREAM_ROUTER_PEER_ALLOWED_IPS";
        let (hooks, events) = hooks(
            &scratch,
            &[("up", say), ("peer_up", say), ("peer_down", say), ("down", say)],
        );
        let (rome, stop) = (peer("rome"), CancellationToken::new());
        events.tell(&rome, true);
        events.tell(&rome, false);

        let running = tokio::spawn(hooks.run(stop.clone()));
        until_told(&scratch, "peer_down").await;
        stop.cancel();
        running.await.unwrap();

        let device = "sr7 10.42.0.1/24 fd42::1/64";
        let peer = format!("{device} rome {} 10.42.0.2/32 fd42::2/128", rome.id);
        assert_eq!(
            fs::read_to_string(scratch.path().join("told")).unwrap(),
            format!("up {device}\npeer_up {peer}\npeer_down {peer}\ndown {device}\n")
        );
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_hook_but_its_own() {
        let scratch = ScratchDir::unique("hooks").unwrap();
        let (hooks, events) = hooks(
            &scratch,
            &[
                ("up", "echo begun; sleep 1000"),
                ("peer_up", "echo never"),
                ("down", "echo down"),
            ],
        );
        let hooks = Hooks {
            limit: Duration::from_secs(900),
            ..hooks
        };
        let stop = CancellationToken::new();
        events.tell(&peer("rome"), true);

        let running = tokio::spawn(hooks.run(stop.clone()));
        until_told(&scratch, "begun").await;
        stop.cancel();
        running.await.unwrap();

        let told = fs::read_to_string(scratch.path().join("told")).unwrap();
        assert_eq!(told, "begun\ndown\n");
    }

    #[tokio::test]
    async fn more_events_than_may_wait_are_left_out() {
        let scratch = ScratchDir::unique("hooks").unwrap();
        let (mut hooks, events) = hooks(&scratch, &[]);
        let rome = peer("rome");

        for _ in 0..MAX_WAITING + 10 {
            events.tell(&rome, true);
        }

        let mut n_waiting = 0;
        while hooks.events.try_recv().is_ok() {
            n_waiting += 1;
        }
        assert_eq!(n_waiting, MAX_WAITING);
    }
}
