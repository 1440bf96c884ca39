//! What the last comparison has found.

use std::time::Instant;

use ipnet::IpNet;

use super::thing::Thing;
use crate::control::{HostState, HostStatus, HostThing};

/// What the last comparison has found.
#[derive(Clone, Debug)]
pub(in crate::node) struct HostReport {
    /// When it was made.
    pub(in crate::node) at: Instant,
    /// Why it could not be made, if it could not.
    pub(in crate::node) failed: Option<String>,
    /// What was looked at.
    pub(in crate::node) things: Vec<HostThing>,
    /// Changes by others that were put back since the start.
    pub(in crate::node) n_put_back: u64,
    /// The device as the kernel has it; `None` if nobody has seen it yet.
    pub(in crate::node) device: Option<SeenDevice>,
}

/// The device as the kernel has it.
#[derive(Clone, Debug)]
pub(in crate::node) struct SeenDevice {
    pub(in crate::node) name: String,
    pub(in crate::node) mtu: u32,
    pub(in crate::node) addresses: Vec<IpNet>,
}

impl HostReport {
    /// Makes the report of a comparison that is still to come.
    pub(in crate::node) fn none_yet() -> Self {
        Self {
            at: Instant::now(),
            failed: Some("nobody has looked yet".to_owned()),
            things: Vec::new(),
            n_put_back: 0,
            device: None,
        }
    }

    /// Returns the report as it is shown at `now`.
    pub(in crate::node) fn status(&self, now: Instant) -> HostStatus {
        HostStatus {
            age_seconds: now.saturating_duration_since(self.at).as_secs_f64(),
            error: self.failed.clone(),
            put_back: self.n_put_back,
            things: self.things.clone(),
        }
    }

    /// Returns what is the matter with the only thing of a kind; `None` if nothing is, and it was looked at.
    pub(in crate::node) fn matter_with(&self, kind: &str) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(why.clone());
        }
        match self.things.iter().find(|thing| thing.kind == kind) {
            Some(thing) => thing.detail.clone(),
            None => Some("nobody has looked".to_owned()),
        }
    }
}

/// Makes the row of one thing, with which nothing is the matter.
pub(super) fn row(thing: &Thing, state: HostState) -> HostThing {
    HostThing {
        kind: thing.kind().to_owned(),
        name: thing.which(),
        state,
        detail: None,
        fix: None,
    }
}
