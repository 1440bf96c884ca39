//! What a package has left of itself.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use super::CleanRoot;

/// What dpkg and the programs that make users keep of what was, and what ends with the system.
const KEPT: &[&str] = &[
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow",
    "etc/passwd-",
    "etc/shadow",
    "etc/subgid",
    "etc/subuid",
    "run/",
    "var/lib/dpkg/",
    "var/log/",
];

/// The files and the users of a system, before a package comes and after it has gone.
#[derive(Debug)]
pub struct Traces {
    /// Files and directories that a package may leave, without the first `/`.
    pub files: BTreeSet<String>,
    /// The lists of users and of groups.
    pub users: [String; 2],
}

impl Traces {
    /// Looks for them.
    ///
    /// # Errors
    /// When the system cannot be read.
    pub fn of(root: &CleanRoot) -> Result<Self> {
        let kept = |path: &String| KEPT.iter().any(|prefix| path.starts_with(prefix));
        let files = root.files()?.into_iter().filter(|path| !kept(path));
        let read = |file: &str| {
            let path = root.path().join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            files: files.collect(),
            users: [read("etc/passwd")?, read("etc/group")?],
        })
    }
}
