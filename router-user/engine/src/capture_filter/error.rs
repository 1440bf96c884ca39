//! The error of a filter expression.

use std::fmt;

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    /// The byte of the expression at which it is wrong, counted from 0.
    pub position: usize,
    /// What stands at that byte, and what may stand there.
    pub wrong: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the filter is wrong at character {}: {}",
            self.position + 1,
            self.wrong
        )
    }
}
