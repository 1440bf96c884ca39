//! The node's metrics and health, which are served, and sent to a collector, if the configuration says where.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::data_thread::Runtimes;
use super::error::NodeError;
use super::export::{self, Export, Exporter};
use super::heartbeat::Heartbeats;
use crate::config::Config;
use crate::control::{ReloadRequest, Source};
use crate::metrics::{
    Access, CheckState, Health, HealthCheck, MetricsError, MetricsServer, MetricsSources, Token, TokenError,
};

const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

/// The server of metrics and health, and the state of the node that it shows.
pub(super) struct Observability {
    state: Arc<HealthState>,
    access: Access,
    _server: Option<MetricsServer>,
    exporter: Option<Exporter>,
}

struct HealthState {
    phase: AtomicU8,
    failure: OnceLock<String>,
    threads: Heartbeats,
    device: String,
    source: Arc<dyn Source>,
}

impl Observability {
    /// Starts the server and the exporter; returns `None` if the configuration has neither.
    ///
    /// # Errors
    /// The address cannot be listened on, or the token or the headers cannot be had.
    pub(super) fn start(
        config: &Config,
        source: Arc<dyn Source>,
        runtimes: &Runtimes,
        network: Registry,
        reloads: Option<mpsc::Sender<ReloadRequest>>,
        export: Export,
    ) -> Result<Option<Self>, NodeError> {
        if config.metrics().listen().is_none() && config.otlp().endpoint().is_none() {
            return Ok(None);
        }
        let access = Access::default();
        access.set(token(config).map_err(MetricsError::from)?);
        let state = Arc::new(HealthState {
            phase: AtomicU8::new(STARTING),
            failure: OnceLock::new(),
            threads: Heartbeats::start(runtimes.named().chain([("main".to_owned(), Handle::current())])),
            device: config.device().name().to_owned(),
            source: source.clone(),
        });
        let asked = state.clone();
        let sources = MetricsSources {
            source,
            health: Arc::new(move || asked.health(Instant::now())),
            access: access.clone(),
            reloads,
            max_flows: config.connections().max_entries(),
            others: Arc::new(network),
        };
        let exporter = export::start(config, sources.clone(), export).map_err(NodeError::Export)?;
        let address = config.metrics().listen();
        let server = address.map(|address| MetricsServer::start(address, config.metrics().hosts(), sources));
        let server = server.transpose()?;
        Ok(Some(Self {
            state,
            access,
            _server: server,
            exporter,
        }))
    }

    /// Lets another token count, or none.
    pub(super) fn set_token(&self, token: Option<Token>) {
        self.access.set(token);
    }

    /// Notes that the node is up.
    pub(super) fn up(&self) {
        self.state.phase.store(RUNNING, Relaxed);
    }

    /// Notes that the node is stopping.
    pub(super) fn stopping(&self) {
        self.state.phase.store(STOPPING, Relaxed);
    }

    /// Sends what there is for the last time, if anything is sent. It takes a few seconds at most.
    pub(super) fn flush(&mut self) {
        self.exporter = None;
    }

    /// Notes that an indispensable part of the node has failed. The first failure counts.
    pub(super) fn failed(&self, error: &dyn std::error::Error) {
        let _first = self.state.failure.set(error.to_string());
    }
}

/// Reads the token of a configuration, if it has one.
///
/// # Errors
/// It cannot be had.
pub(super) fn token(config: &Config) -> Result<Option<Token>, TokenError> {
    config.metrics().token_file().map(Token::load).transpose()
}

impl HealthState {
    fn health(&self, now: Instant) -> Health {
        Health::new(vec![
            self.node(),
            self.threads(now),
            self.host(),
            self.device(),
            self.peers(),
        ])
    }

    fn node(&self) -> HealthCheck {
        let (status, detail) = match (self.failure.get(), self.phase.load(Relaxed)) {
            (Some(failure), _) => (CheckState::Failing, format!("failed: {failure}")),
            (None, STARTING) => (CheckState::Failing, "starting".to_owned()),
            (None, RUNNING) => (CheckState::Ok, "running".to_owned()),
            (None, _) => (CheckState::Failing, "stopping".to_owned()),
        };
        HealthCheck::new("node", status, detail)
    }

    fn threads(&self, now: Instant) -> HealthCheck {
        let silent = self.threads.silent(now);
        let silent = silent.map(|(thread, silence)| format!("{thread} for {} s", silence.as_secs()));
        let silent = silent.collect::<Vec<_>>().join(", ");
        if silent.is_empty() {
            let detail = format!("all {} answer", self.threads.n_threads());
            return HealthCheck::new("threads", CheckState::Ok, detail);
        }
        HealthCheck::new("threads", CheckState::Failing, format!("no answer from {silent}"))
    }

    /// Checks whether all that the node wants of the host was so when last compared.
    fn host(&self) -> HealthCheck {
        let problems = self.source.status().host.problems();
        if problems.is_empty() {
            return HealthCheck::new("host", CheckState::Ok, "as the node wants it");
        }
        HealthCheck::new("host", CheckState::Failing, problems.join("; "))
    }

    fn device(&self) -> HealthCheck {
        let name = &self.device;
        let (status, detail) = match getifaddrs() {
            Ok(mut all) => match all.find(|device| device.interface_name == *name) {
                Some(device) if device.flags.contains(InterfaceFlags::IFF_UP) => {
                    (CheckState::Ok, format!("{name} is up"))
                }
                Some(_) => (
                    CheckState::Failing,
                    format!("{name} is down: `ip link set {name} up`"),
                ),
                None => (CheckState::Failing, format!("{name} is gone; restart the node")),
            },
            Err(error) => (CheckState::Degraded, format!("cannot look for {name}: {error}")),
        };
        HealthCheck::new("device", status, detail)
    }

    /// Checks whether every peer is connected. Without one the node is degraded only: to restart it would not bring the
    /// peer back.
    fn peers(&self) -> HealthCheck {
        let status = self.source.status();
        let (connected, configured) = (status.connected_peers, status.configured_peers);
        let state = if connected < configured {
            CheckState::Degraded
        } else {
            CheckState::Ok
        };
        HealthCheck::new("peers", state, format!("{connected} of {configured} connected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::example::Example;

    fn state(device: &str) -> HealthState {
        HealthState {
            phase: AtomicU8::new(STARTING),
            failure: OnceLock::new(),
            threads: Heartbeats::start([]),
            device: device.to_owned(),
            source: Arc::new(Example),
        }
    }

    fn said(state: &HealthState) -> Vec<(String, CheckState, String)> {
        let checks = state.health(Instant::now()).checks.into_iter();
        checks
            .map(|check| (check.name, check.status, check.detail))
            .collect()
    }

    #[test]
    fn a_node_is_healthy_from_start_to_stop_unless_a_part_fails() {
        let state = state("lo");
        let node = || said(&state)[0].clone();

        let starting = node();
        state.phase.store(RUNNING, Relaxed);
        let running = node();
        state.phase.store(STOPPING, Relaxed);
        let stopping = node();
        state.failure.set("a task ended".to_owned()).unwrap();

        let expected = |status, detail: &str| ("node".to_owned(), status, detail.to_owned());
        assert_eq!(starting, expected(CheckState::Failing, "starting"));
        assert_eq!(running, expected(CheckState::Ok, "running"));
        assert_eq!(stopping, expected(CheckState::Failing, "stopping"));
        assert_eq!(node(), expected(CheckState::Failing, "failed: a task ended"));
    }

    #[test]
    fn a_device_that_is_gone_fails_and_an_absent_peer_does_not() {
        let state = state("no-such-device");
        state.phase.store(RUNNING, Relaxed);

        let [.., device, peers] = &said(&state)[..] else {
            panic!("no checks");
        };

        assert_eq!((device.0.as_str(), device.1), ("device", CheckState::Failing));
        assert_eq!(device.2, "no-such-device is gone; restart the node");
        assert_eq!(
            (peers.1, peers.2.as_str()),
            (CheckState::Degraded, "1 of 2 connected")
        );
        assert_eq!(state.health(Instant::now()).status, CheckState::Failing);
    }
}
