//! The version of what is packaged, and its time.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::LIMIT;
use crate::lab::process::text;

/// Environment variable: time that packaged files bear, in seconds since 1970 (<https://reproducible-builds.org>).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Version of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    epoch_secs: u64,
}

impl Version {
    /// Makes a version with the time that the packaged files bear, in seconds since 1970.
    pub fn new(text: &str, epoch_secs: u64) -> Self {
        Self {
            text: text.to_owned(),
            epoch_secs,
        }
    }

    /// Returns the version of a checkout: that of the workspace, on a commit with its tag; with time and id of the
    /// commit added on any other, so that what is made later counts as newer. Without git it is that of the workspace,
    /// and the time is taken from `SOURCE_DATE_EPOCH`, which goes before git's in any case.
    ///
    /// # Errors
    /// When there is neither git nor the variable, or the variable is no number.
    pub fn of_checkout(workspace: &Path) -> Result<Self> {
        let epoch_secs = std::env::var(EPOCH).ok();
        let epoch_secs = epoch_secs
            .map(|text| {
                text.parse()
                    .with_context(|| format!("{EPOCH}={text} is no number of seconds"))
            })
            .transpose()?;
        let base = env!("CARGO_PKG_VERSION");
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.env("TZ", "UTC").arg("-C").arg(workspace).args(args);
            text(&mut command, LIMIT).map(|printed| printed.trim().to_owned())
        };
        let format = "--format=%ct %cd %h";
        let commit = match (
            git(&["log", "-1", format, "--date=format-local:%Y%m%d%H%M%S"]),
            epoch_secs,
        ) {
            (Ok(commit), _) => commit,
            (Err(_), Some(epoch_secs)) => return Ok(Self::new(base, epoch_secs)),
            (Err(error), None) => {
                return Err(error).context(format!(
                    "to package without git, set {EPOCH} to the time of the source"
                ));
            }
        };
        let tags = git(&["tag", "--points-at", "HEAD"])?;
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let tagged = tags.lines().any(|tag| tag == format!("v{base}"));
        Self::of_commit(base, &commit, tagged, changed, epoch_secs)
    }

    fn of_commit(
        base: &str,
        commit: &str,
        tagged: bool,
        changed: bool,
        epoch_secs: Option<u64>,
    ) -> Result<Self> {
        let mut words = commit.split_whitespace();
        let mut word = || {
            words
                .next()
                .with_context(|| format!("git log printed {commit:?}"))
        };
        let (committed, date, id) = (word()?, word()?, word()?);
        let committed = committed.parse().context("git log printed no time")?;
        let suffix = match (tagged, changed) {
            (true, false) => String::new(),
            (_, false) => format!("+git{date}.{id}"),
            (_, true) => format!("+git{date}.{id}.changed"),
        };
        Ok(Self::new(
            &format!("{base}{suffix}"),
            epoch_secs.unwrap_or(committed),
        ))
    }

    /// Returns the version as packages show it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the time that packaged files bear, in seconds since 1970.
    pub fn epoch_secs(&self) -> u64 {
        self.epoch_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1790000000 20260921142640 03608dd";

    #[test]
    fn a_tagged_commit_has_the_version_of_the_workspace() {
        let version = Version::of_commit("1.2.3", COMMIT, true, false, None).unwrap();

        assert_eq!(version, Version::new("1.2.3", 1_790_000_000));
    }

    #[test]
    fn any_other_commit_adds_its_time_and_id() {
        let version = |changed| Version::of_commit("1.2.3", COMMIT, false, changed, Some(7)).unwrap();

        assert_eq!(version(false), Version::new("1.2.3+git20260921142640.03608dd", 7));
        assert_eq!(version(true).text(), "1.2.3+git20260921142640.03608dd.changed");
    }
}
