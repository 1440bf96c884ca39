//! Measurements: figures for people, never a test's verdict.

mod compare;
mod cpu;
mod datagrams;
mod far;
mod figure;
mod flood;
mod gateway;
mod installs;
mod isolation;
mod measure;
mod overlay;
mod peers;
mod report;
mod roaming;
mod silence;
mod stats;
mod underlay;
mod uplinks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::command::{cargo, require_root, run};
use crate::{build, install};
pub(crate) use compare::{ComparisonPlan, compare};
pub(crate) use far::FarPlan;
pub(crate) use roaming::RoamingPlan;

/// Measures packets per second through the router that programs embed, beside a naive one.
///
/// # Errors
/// When the build fails, or when a packet that was taken was not written.
pub(crate) fn dispatch() -> Result<()> {
    build::object()?;
    run(cargo().args(["bench", "--package=stream-router", "--bench=dispatch"]))
}

/// Measures what the steering of flows costs: the program alone, then an established flow beside a flood of new ones.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn steering(seconds: Duration) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    build::object()?;
    run(cargo().args(["bench", "--package=stream-router-node", "--bench=steering"]))?;
    flood::run(seconds)
}

/// Measures what a stopped peer costs another one.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn isolation(repeats: u32) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    isolation::run(repeats)
}

/// Measures how long a flow is silent when the network under the nodes changes.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn roaming(plan: &RoamingPlan) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    roaming::run(plan)
}

/// Measures one flow over a path that is long and loses packets, by every transport.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn far(plan: &FarPlan) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    far::run(plan)
}

/// Measures what flows carry through two uplinks together.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn uplinks(program: Option<PathBuf>) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    uplinks::run(program)
}

/// Measures a network behind a node: forwarded by the host, and captured by a gateway of each kind.
///
/// # Errors
/// When not root, when a build fails, or when a measurement cannot be made.
pub(crate) fn gateway(duration: Duration, repeats: u32) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    gateway::run(duration, repeats)
}
