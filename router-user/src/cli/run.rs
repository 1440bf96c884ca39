//! `stream-router run`

use std::env;
use std::error::Error;
use std::io::{IsTerminal, stderr};
use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::Outcome;
use crate::config::Config;
use crate::node;

/// The INFO of swarm and mDNS repeats ours, and tells of every stranger on the local network. The DHT warns that it
/// knows nobody yet when it starts.
const DEFAULT_FILTER: &str = "info,libp2p_swarm=warn,libp2p_mdns=warn,libp2p_kad=error";

/// Runs a node in the foreground.
pub(super) fn run(file: &Path) -> Outcome {
    let config = Config::load(file)?;
    let filter = log_filter()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    Ok(node::run(&config)?)
}

fn log_filter() -> Result<EnvFilter, Box<dyn Error>> {
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            format!("RUST_LOG={text} is no log filter: {error}; such as \"info\" or \"stream_router=debug\"")
                .into()
        }),
        Err(env::VarError::NotPresent) => Ok(EnvFilter::new(DEFAULT_FILTER)),
        Err(error) => Err(format!("RUST_LOG: {error}").into()),
    }
}
