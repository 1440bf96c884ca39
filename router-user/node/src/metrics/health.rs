//! `GET /health`

use serde::{Deserialize, Serialize};

/// Whether the node works.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Health {
    /// The worst of the checks.
    pub status: CheckState,
    /// What was looked at.
    pub checks: Vec<HealthCheck>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: CheckState,
    /// What was seen.
    pub detail: String,
}

/// How something is; what comes later is worse.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// The node works, but not for everybody.
    Degraded,
    /// The node carries nothing.
    Failing,
}

impl Health {
    /// Of these checks.
    pub fn new(checks: Vec<HealthCheck>) -> Self {
        let states = checks.iter().map(|check| check.status);
        Self {
            status: states.max().unwrap_or(CheckState::Ok),
            checks,
        }
    }
}

impl HealthCheck {
    /// A check called `name`.
    pub fn new(name: &str, status: CheckState, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status,
            detail: detail.into(),
        }
    }

    /// Whether it is as it should be.
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
