//! What a check says.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// A node runs, but not as well as it could.
    Warning,
    /// A node does not run, or part of its traffic goes nowhere.
    Problem,
    /// It cannot be told from here.
    Unknown,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Name of the check; it stays.
    pub(super) check: &'static str,
    /// The interface, address or file that it is about.
    pub(super) subject: Option<String>,
    /// How bad it is.
    pub(super) verdict: Verdict,
    /// What was seen, and what it means.
    pub(super) detail: String,
    /// A command that fixes it.
    pub(super) fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, detail.into())
    }

    /// Not as good as it could be.
    pub(super) fn warning(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, detail.into())
    }

    /// Bad.
    pub(super) fn problem(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Problem, detail.into())
    }

    /// Not to be told, and why.
    pub(super) fn unknown(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, detail.into())
    }

    /// The same, about something of several.
    pub(super) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The same, with the command that fixes it.
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

    /// A line, and another for the command.
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
