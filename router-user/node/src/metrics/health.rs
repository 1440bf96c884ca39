//! `GET /health`

use serde::{Deserialize, Serialize};

/// Whether the node works.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Health {
    /// The worst state of the checks.
    pub status: CheckState,
    /// All checks.
    pub checks: Vec<HealthCheck>,
}

/// One check and its result.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HealthCheck {
    /// Name of the check.
    pub name: String,
    /// State of what was checked.
    pub status: CheckState,
    /// What was seen.
    pub detail: String,
}

/// State of what was checked; a later variant is worse.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Nothing is wrong.
    Ok,
    /// The node works, but not for all peers.
    Degraded,
    /// The node carries nothing.
    Failing,
}

impl Health {
    /// Makes the health that these checks add up to.
    pub fn new(checks: Vec<HealthCheck>) -> Self {
        let states = checks.iter().map(|check| check.status);
        Self {
            status: states.max().unwrap_or(CheckState::Ok),
            checks,
        }
    }
}

impl HealthCheck {
    /// Makes a check called `name`.
    pub fn new(name: &str, status: CheckState, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status,
            detail: detail.into(),
        }
    }

    /// Returns whether the node works for all peers.
    pub fn passes(&self) -> bool {
        self.status == CheckState::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_health() {
        use CheckState::{Degraded, Failing, Ok};
        for (states, worst) in [
            (&[][..], Ok),
            (&[Ok, Ok], Ok),
            (&[Ok, Degraded, Ok], Degraded),
            (&[Failing, Degraded, Ok], Failing),
        ] {
            let checks = states
                .iter()
                .map(|state| HealthCheck::new("x", *state, ""))
                .collect();
            assert_eq!(Health::new(checks).status, worst);
        }
    }
}
