//! The process of a node: signals, requests to reload, and the service manager.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error_span, info};

use super::descriptors;
use super::error::NodeError;
use super::export::Export;
use super::lifecycle::{Node, clear_routes};
use super::reload::ConfigFile;
use super::service::Service;
use super::tunnel_routes::StopReason;
use crate::config::Config;
use crate::control::ReloadRequest;
use crate::logs::Logs;
use stream_router::p2p::Keypair;
use stream_router::p2p::identity::{self, IdentityError};

/// Requests to reload that may wait.
const MAX_RELOADS: usize = 4;

/// Returns the identity of the node; with `make_key` a new one if there is none.
///
/// # Errors
/// There is none, or it cannot be used or made.
pub(crate) fn identity(config: &Config, make_key: bool) -> Result<Keypair, NodeError> {
    let file = config.node().key();
    match identity::load(file) {
        Err(IdentityError::Missing { .. }) if make_key => {
            let made = identity::generate(file)?;
            let peer_id = made.public().to_peer_id();
            info!(file = %file.display(), %peer_id, "made a key, as there was none: this is the node's id from now on");
            Ok(made)
        }
        loaded => Ok(loaded?),
    }
}

/// Runs a node until SIGINT or SIGTERM, or until it fails. On SIGHUP, or a request at the control socket, it
/// reads `file` again.
///
/// # Errors
/// The node could not start, run or stop in order.
pub(crate) fn run(config: &Config, keypair: Keypair, file: &Path, logs: &Logs) -> Result<(), NodeError> {
    // Every thread of the node is in its span from beginning to end: to enter it for each turn of a worker would cost.
    let _node =
        error_span!("node", name = config.node().name(), peer_id = %keypair.public().to_peer_id()).entered();
    logs.name_peers(&[config]);
    descriptors::raise_limit();
    let system = |action| move |source| NodeError::System { action, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the main runtime"))?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle SIGINT"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("handle SIGTERM"))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(system("handle SIGHUP"))?;
        let mut stopped = std::pin::pin!(async {
            tokio::select! {
                _ = interrupt.recv() => StopReason::OnPurpose,
                _ = terminate.recv() => StopReason::Unknown,
            }
        });
        let export = Export::of(config);
        let spans = export.spans();
        let file = ConfigFile {
            path: file.to_owned(),
            logs,
            spans: spans.clone(),
        };
        let (reload, mut reloads) = mpsc::channel::<ReloadRequest>(MAX_RELOADS);
        let mut repeats = std::pin::pin!(logs.report_repeats());
        let began = spans.begin("node.start");
        let mut node = tokio::select! {
            node = Node::start(config, keypair, reload, export) => node?,
            // What else has been made so far is taken down as it is dropped.
            reason = &mut stopped => {
                clear_routes(config, reason).await;
                return Ok(());
            }
        };
        drop(began);
        let service = Service::ready(&node.runtimes(), node.peers());
        let (failure, reason) = loop {
            tokio::select! {
                reason = &mut stopped => {
                    info!(signal = reason.signal(), "stopping");
                    break (Ok(()), reason);
                }
                failure = node.failed() => break (Err(failure), StopReason::Failure),
                // The log has what comes of it.
                Some(()) = hangup.recv() => drop(file.reload(&mut node).await),
                Some(request) = reloads.recv() => {
                    // The client may have gone.
                    let _ = request.reply.send(file.handle(&mut node, request.change).await);
                }
                () = &mut repeats => {}
            }
        };
        service.stopping();
        let down = node.stop(reason).await;
        failure.and(down)
    })
}
