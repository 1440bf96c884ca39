//! What the node wants of the host, as it was when last compared with the kernel's state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Age in seconds from which a comparison says nothing any more: one is made every few seconds.
const STALE_SECONDS: f64 = 30.0;

/// What the last comparison of the wanted with the kernel's state has found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct HostStatus {
    /// Seconds since the comparison.
    pub age_seconds: f64,
    /// Why the comparison could not be made, if it could not.
    pub error: Option<String>,
    /// Things that somebody else changed and the node put back since the start.
    pub put_back: u64,
    /// Things that were compared: first those that are not as the node wants them.
    pub things: Vec<HostThing>,
}

/// One thing of the host, or several routes that are all as they are to be.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HostThing {
    /// Name of the kind, such as `address` or `hook`.
    pub kind: String,
    /// Which of its kind it is; empty if there is one only.
    pub name: String,
    /// Whether the thing is as the node wants it.
    pub state: HostState,
    /// What is the matter; null if nothing is.
    pub detail: Option<String>,
    /// The command by which a person puts it right; null where `stream-router reload` does.
    #[serde(default)]
    pub fix: Option<String>,
}

/// Whether a thing is as the node wants it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It is.
    Ok,
    /// It is not, and the node puts it back as soon as the kernel lets it.
    Wrong,
    /// It is not, and the node leaves it: somebody changes it time and again, or it is somebody else's.
    Conflict,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Wrong => "wrong",
            Self::Conflict => "conflict",
        })
    }
}

impl HostStatus {
    /// Returns a text for each thing that is not as the node wants it, and for a comparison that failed or is old.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(why) = &self.error {
            problems.push(format!("the host could not be looked at: {why}"));
        }
        if self.age_seconds > STALE_SECONDS {
            problems.push(format!(
                "the host was last looked at {:.0} s ago",
                self.age_seconds
            ));
        }
        let details = self.things.iter().filter(|thing| thing.state != HostState::Ok);
        problems.extend(details.map(HostThing::text_with_fix));
        problems
    }
}

impl HostThing {
    /// Returns what is the matter, or that nothing is.
    pub fn text(&self) -> String {
        match &self.detail {
            Some(detail) => detail.clone(),
            None => format!("{} {} is {}", self.kind, self.name, self.state),
        }
    }

    /// Returns what is the matter, and the command that puts it right if there is one.
    pub fn text_with_fix(&self) -> String {
        match &self.fix {
            Some(fix) => format!("{} (to put it right: {fix})", self.text()),
            None => self.text(),
        }
    }
}
