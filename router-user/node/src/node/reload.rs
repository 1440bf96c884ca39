//! Reads the configuration file of a running node again, on request, and reports the outcome.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::config_problems::reload_problems;
use super::lifecycle::Node;
use super::peer_change;
use super::reloadable::Reloaded;
use crate::config::{Changes, Config, ConfigError};
use crate::control::{EventKind, PeerChange, PeerName, Reload, ReloadRefusal};
use crate::logs::Logs;
use crate::spans::Spans;
use stream_router::p2p::PeerId;
use stream_router_engine::causes::with_sources;

/// The configuration file of a node, and the log whose level it sets.
pub(super) struct ConfigFile<'a> {
    pub(super) path: PathBuf,
    pub(super) logs: &'a Logs,
    pub(super) spans: Spans,
}

impl ConfigFile<'_> {
    /// Reads the file again and gives it to `node`; the outcome is logged, and noted as an event.
    pub(super) async fn reload(&self, node: &mut Node) -> Result<Reload, ReloadRefusal> {
        let mut span = self.spans.begin("config.reload");
        let outcome = self.apply(node).await;
        let events = node.events();
        match &outcome {
            Ok(reload) => events.note(EventKind::Reload, summary(reload)),
            Err(refusal) => {
                let summary = refusal_summary(refusal);
                span.fail(&summary);
                events.note(EventKind::ReloadRefused, summary);
            }
        }
        outcome
    }

    /// Makes the change that a request has, and reads the file again.
    pub(super) async fn handle(
        &self,
        node: &mut Node,
        change: Option<PeerChange>,
    ) -> Result<Reload, ReloadRefusal> {
        if let Some(change) = change {
            let path = self.path.clone();
            let made = spawn_blocking(move || peer_change::make(&path, change)).await;
            // A panic has been printed already.
            made.unwrap_or_else(|_panic| Err(ReloadRefusal::Unwritable("the change failed".to_owned())))?;
        }
        self.reload(node).await
    }

    async fn apply(&self, node: &mut Node) -> Result<Reload, ReloadRefusal> {
        let new = Config::load_regular(&self.path).map_err(|wrong| self.refuse(&wrong))?;
        let old = node.config().clone();
        // Those that go are still called by their names.
        self.logs.name_peers(&[&old, &new]);
        let level_changed = node.config().log().level() != new.log().level();
        let mut reloaded = node.reload(&new).await.map_err(|failure| {
            self.logs.name_peers(&[&old]);
            let text = with_sources(&failure);
            error!(
                error = text,
                "the configuration was read again, and the node cannot take it: nothing has changed"
            );
            ReloadRefusal::Failed(text)
        })?;
        if level_changed && let Err(why) = self.logs.set_level(new.log()) {
            reloaded.notes.push(format!("log.level has no effect: {why}"));
        }
        report(&reloaded);
        Ok(answer(&self.path, reloaded, &[&old, &new]))
    }

    fn refuse(&self, wrong: &ConfigError) -> ReloadRefusal {
        for problem in wrong.problems() {
            error!(
                file = %problem.file().display(),
                line = problem.line(),
                field = problem.field(),
                allowed = problem.allowed(),
                "the configuration is wrong: {}",
                problem.wrong()
            );
        }
        let text = with_sources(wrong);
        if wrong.problems().is_empty() {
            error!(error = text, "the configuration cannot be read again");
        }
        error!(file = %self.path.display(), "nothing has changed: the node goes on with the configuration it has");
        ReloadRefusal::File(reload_problems(wrong))
    }
}

fn report(Reloaded { changes, notes }: &Reloaded) {
    let Changes {
        peers_added,
        peers_removed,
        peers_changed,
        applied,
        needs_restart,
    } = changes;
    info!(
        peers_added = peers_added.len(),
        peers_removed = peers_removed.len(),
        peers_changed = peers_changed.len(),
        applied = applied.join(", "),
        "the configuration was read again"
    );
    if !needs_restart.is_empty() {
        warn!(
            fields = needs_restart.join(", "),
            "changed in the configuration, and without effect until the node is restarted"
        );
    }
    for note in notes {
        warn!("{note}");
    }
}

/// Returns what a reload has changed, in one line.
fn summary(reload: &Reload) -> String {
    let peers = [
        ("added", &reload.peers_added),
        ("removed", &reload.peers_removed),
        ("changed", &reload.peers_changed),
    ];
    let peers = peers.into_iter().filter(|(_, peers)| !peers.is_empty());
    let peers = peers.map(|(what, peers)| match peers.len() {
        1 => format!("1 peer {what}"),
        n => format!("{n} peers {what}"),
    });
    let fields = [
        ("applied", &reload.applied),
        ("needs a restart", &reload.needs_restart),
    ];
    let fields = fields.into_iter().filter(|(_, fields)| !fields.is_empty());
    let fields = fields.map(|(what, fields)| format!("{what}: {}", fields.join(", ")));
    let parts: Vec<_> = peers.chain(fields).collect();
    match parts.is_empty() {
        true => "nothing has changed".to_owned(),
        false => parts.join("; "),
    }
}

/// Returns where the file is wrong, in one line: what stands there may be no business of those who see events.
fn refusal_summary(refusal: &ReloadRefusal) -> String {
    let problems = match refusal {
        ReloadRefusal::Failed(why) => return format!("the node cannot take it: {why}"),
        ReloadRefusal::File(file) => &file.problems,
        // Those are about a change of the file, which was not made.
        ReloadRefusal::Senseless(why)
        | ReloadRefusal::NoPeer(why)
        | ReloadRefusal::Busy(why)
        | ReloadRefusal::Unwritable(why) => return why.clone(),
    };
    let Some(first) = problems.first() else {
        return "the file cannot be read".to_owned();
    };
    let place = format!("{} at {}:{}", first.field, first.file, first.line);
    match problems.len() {
        1 => format!("the file is wrong: {place}"),
        n => format!("the file is wrong in {n} places, the first is {place}"),
    }
}

/// Returns the answer; the peers have the names that `configs` give them, the last one that names it first.
fn answer(file: &Path, Reloaded { changes, notes }: Reloaded, configs: &[&Config]) -> Reload {
    let changed = [
        &changes.peers_added,
        &changes.peers_removed,
        &changes.peers_changed,
    ];
    let peers = configs.iter().flat_map(|config| config.peers());
    let names: HashMap<_, _> = peers.map(|peer| (peer.id(), peer.name())).collect();
    let named = |id: &PeerId| {
        let name = (*names.get(id)?)?.to_owned();
        let id = id.to_string();
        Some(PeerName { id, name })
    };
    let peer_names = changed.into_iter().flatten().filter_map(named).collect();
    let ids = |peers: Vec<PeerId>| peers.iter().map(ToString::to_string).collect();
    let fields = |fields: Vec<&str>| fields.into_iter().map(str::to_owned).collect();
    Reload {
        file: file.display().to_string(),
        peers_added: ids(changes.peers_added),
        peers_removed: ids(changes.peers_removed),
        peers_changed: ids(changes.peers_changed),
        peer_names,
        applied: fields(changes.applied),
        needs_restart: fields(changes.needs_restart),
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_logs_is_never_suppressed() {
        assert_eq!(module_path!(), format!("{}::tests", crate::logs::ANSWERS));
    }

    fn config(name: &str, peer: PeerId) -> Config {
        let text = format!(
            "[device]\naddresses = [\"10.42.0.1/24\"]\n[[peer]]\nid = \"{peer}\"\nname = \"{name}\"\n\
             allowed_ips = [\"10.42.0.2/32\"]\n"
        );
        Config::parse(&text, Path::new("sr.toml")).unwrap()
    }

    #[test]
    fn an_answer_names_what_has_changed_by_id_and_field() {
        let (peer, gone) = (PeerId::random(), PeerId::random());
        let (old, new) = (config("rome", gone), config("paris", peer));
        let reloaded = Reloaded {
            changes: Changes {
                peers_added: vec![peer],
                peers_removed: vec![gone],
                applied: vec!["log.level"],
                needs_restart: vec!["device.mtu"],
                ..Changes::default()
            },
            notes: vec!["a note".to_owned()],
        };

        assert_eq!(
            answer(Path::new("/etc/sr.toml"), reloaded, &[&old, &new]),
            Reload {
                file: "/etc/sr.toml".to_owned(),
                peers_added: vec![peer.to_string()],
                peers_removed: vec![gone.to_string()],
                peer_names: [(peer, "paris"), (gone, "rome")]
                    .map(|(id, name)| PeerName {
                        id: id.to_string(),
                        name: name.to_owned(),
                    })
                    .to_vec(),
                applied: vec!["log.level".to_owned()],
                needs_restart: vec!["device.mtu".to_owned()],
                notes: vec!["a note".to_owned()],
                ..Reload::default()
            }
        );
    }

    #[test]
    fn an_event_tells_what_a_reload_changed_and_where_a_file_is_wrong_but_not_what_it_says() {
        let mut reload = Reload::default();
        assert_eq!(summary(&reload), "nothing has changed");
        reload.peers_added = vec!["a".to_owned(), "b".to_owned()];
        reload.peers_removed = vec!["c".to_owned()];
        reload.needs_restart = vec!["device.mtu".to_owned()];
        assert_eq!(
            summary(&reload),
            "2 peers added; 1 peer removed; needs a restart: device.mtu"
        );

        let text = "[device]\naddresses = [\"10.42.0.1/24\"]\nmtu = \"hunter2\"\n";
        let wrong = Config::parse(text, Path::new("sr.toml")).unwrap_err();
        let refusal = ReloadRefusal::File(reload_problems(&wrong));
        assert_eq!(
            refusal_summary(&refusal),
            "the file is wrong: device.mtu at sr.toml:3"
        );
    }
}
