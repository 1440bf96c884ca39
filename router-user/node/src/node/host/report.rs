//! What the last comparison has found.

use std::time::{Duration, Instant};

use super::thing::Thing;

/// Age from which a comparison says nothing of the host any more: it is made every few seconds.
const STALE: Duration = Duration::from_secs(30);

/// What the last comparison has found.
#[derive(Clone, Debug)]
pub(in crate::node) struct HostReport {
    /// When it was made.
    pub(in crate::node) at: Instant,
    /// Why it could not be made, if it could not.
    pub(in crate::node) failed: Option<String>,
    /// What was looked at.
    pub(in crate::node) rows: Vec<Row>,
    /// Changes by others that were put back since the start.
    pub(in crate::node) n_put_back: u64,
}

/// One thing, or several of a kind that all are as they are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Row {
    /// Name of the kind.
    pub(in crate::node) kind: &'static str,
    /// Which of the kind it is; how many, if it stands for several.
    pub(in crate::node) which: String,
    /// How it is.
    pub(in crate::node) state: State,
}

/// How a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum State {
    /// As the node wants it.
    Right,
    /// Not so, and it could not be put back yet.
    Wrong(String),
    /// Not so, and left: another hand changes it time and again, or it is another's.
    Conflict(String),
}

impl HostReport {
    /// Returns what is not as the node wants it, in the order of the rows; nothing if all is.
    pub(in crate::node) fn wrong(&self, now: Instant) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(why) = &self.failed {
            wrong.push(format!("cannot look: {why}"));
        }
        let age = now.saturating_duration_since(self.at);
        if age > STALE {
            wrong.push(format!("nobody has looked for {} s", age.as_secs()));
        }
        wrong.extend(self.rows.iter().filter_map(|row| match &row.state {
            State::Right => None,
            State::Wrong(what) | State::Conflict(what) => Some(what.clone()),
        }));
        wrong
    }

    /// Returns a text for the things that are as they are to be.
    pub(in crate::node) fn n_right(&self) -> usize {
        self.rows.iter().filter(|row| row.state == State::Right).count()
    }
}

impl Row {
    /// Makes the row of one thing.
    pub(in crate::node) fn of(thing: &Thing, state: State) -> Self {
        Self {
            kind: thing.kind(),
            which: thing.which(),
            state,
        }
    }
}
