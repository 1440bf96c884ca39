//! The result of a check.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Nothing is wrong.
    Ok,
    /// A node runs, but not as well as it could.
    Warning,
    /// A node does not run, or part of its traffic goes nowhere.
    Problem,
    /// The check could not be made.
    Unknown,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Name of the check, which does not change between versions.
    pub(super) check: &'static str,
    /// Interface, address or file that the finding is about.
    pub(super) subject: Option<String>,
    /// How bad a finding is.
    pub(super) verdict: Verdict,
    /// What was seen, and what it means.
    pub(super) detail: String,
    /// A command that fixes what is wrong.
    pub(super) fix: Option<String>,
}

impl Finding {
    /// Finds that nothing is wrong.
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, detail.into())
    }

    /// Makes a finding of something that could be better.
    pub(super) fn warning(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, detail.into())
    }

    /// Makes a finding of a problem.
    pub(super) fn problem(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Problem, detail.into())
    }

    /// Makes a finding of a check that could not be made, and why.
    pub(super) fn unknown(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, detail.into())
    }

    /// Sets which of several things the finding is about.
    pub(super) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the command that fixes what is wrong.
    pub(super) fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }

    fn new(check: &'static str, verdict: Verdict, detail: String) -> Self {
        Self {
            check,
            subject: None,
            verdict,
            detail,
            fix: None,
        }
    }

    /// Returns the line of the finding, and another line for the command.
    pub(super) fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
            Verdict::Unknown => "unknown",
        };
        let subject = self
            .subject
            .as_ref()
            .map_or(String::new(), |subject| format!("{subject}: "));
        let mut text = format!("{verdict:<8} {:<18} {subject}{}\n", self.check, self.detail);
        if let Some(fix) = &self.fix {
            text += &format!("{:28}{fix}\n", "");
        }
        text
    }
}
