//! What is wrong with parameters, field by field.

use std::fmt;

use thiserror::Error;

/// Why a [`StreamRouterConfig`](super::StreamRouterConfig) cannot be made; prints one line per problem.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", lines(problems))]
pub struct StreamRouterConfigError {
    problems: Vec<FieldProblem>,
}

impl StreamRouterConfigError {
    /// Returns every problem, at least one, in the order of the fields' names.
    pub fn problems(&self) -> &[FieldProblem] {
        &self.problems
    }
}

fn lines(problems: &[FieldProblem]) -> String {
    let lines: Vec<_> = problems.iter().map(FieldProblem::to_string).collect();
    lines.join("\n")
}

/// One parameter that is wrong. Prints as `FIELD: what is wrong (allowed: what is allowed)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    field: String,
    wrong: String,
    allowed: String,
}

impl FieldProblem {
    /// Returns its name in a file, such as `workers.max`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns what is wrong with it.
    pub fn wrong(&self) -> &str {
        &self.wrong
    }

    /// Returns what is allowed in its place.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            wrong,
            allowed,
        } = self;
        write!(f, "{field}: {wrong} (allowed: {allowed})")
    }
}

/// Collects problems while values are read.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<FieldProblem>);

impl Problems {
    pub(super) fn add(
        &mut self,
        field: impl Into<String>,
        wrong: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.0.push(FieldProblem {
            field: field.into(),
            wrong: wrong.into(),
            allowed: allowed.into(),
        });
    }

    /// Returns `value` if nothing was wrong.
    pub(super) fn unless_any<T>(self, value: T) -> Result<T, StreamRouterConfigError> {
        let mut problems = self.0;
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by(|a, b| a.field.cmp(&b.field));
        Err(StreamRouterConfigError { problems })
    }
}
