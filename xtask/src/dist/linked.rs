//! The packages whose code is inside the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{LIMIT, Platform};
use crate::lab::process::text;

/// The package of the program.
const ROOT: &str = "stream-router-node";

/// A package that the program is linked with, or that made code of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) name: String,
    pub(super) version: String,
    /// Its licence, in SPDX's words; empty if it names none.
    pub(super) license: String,
    pub(super) repository: String,
    /// Where its source is.
    pub(super) directory: PathBuf,
    /// Whether it is from a registry, and no part of this workspace.
    pub(super) is_foreign: bool,
    /// Names and versions of those that it uses itself.
    pub(super) uses: Vec<(String, String)>,
}

impl Linked {
    /// Returns every package inside the program for a platform, itself too.
    ///
    /// # Errors
    /// When cargo fails.
    pub(super) fn all(workspace: &Path, platform: &Platform) -> Result<Vec<Self>> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut tree = Command::new(&cargo);
        tree.current_dir(workspace)
            .args([
                "tree",
                "--offline",
                "--edges=normal",
                "--prefix=none",
                "--format={p}",
            ])
            .arg(format!("--package={ROOT}"))
            .arg(format!("--target={}", platform.triple()));
        // Lines such as `nix v0.31.3` or, of the workspace, `router-common v0.1.0 (/path)`.
        let names = text(&mut tree, LIMIT)?;
        let names: BTreeSet<(&str, &str)> = names
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?.strip_prefix('v')?))
            })
            .collect();
        let mut metadata = Command::new(&cargo);
        metadata
            .current_dir(workspace)
            .args(["metadata", "--offline", "--format-version=1"])
            .arg(format!("--filter-platform={}", platform.triple()));
        let metadata: Value = serde_json::from_str(&text(&mut metadata, LIMIT)?).context("cargo metadata")?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        let by_id = |id: &Value| packages.iter().find(|package| package["id"] == *id);
        let nodes = metadata["resolve"]["nodes"].as_array();
        let nodes = nodes.context("cargo metadata says nothing of who uses whom")?;
        let mut all = Vec::new();
        for node in nodes {
            let package =
                by_id(&node["id"]).context("cargo metadata lists a package that it does not know")?;
            if !names.contains(&named(package)) {
                continue;
            }
            let used = node["deps"].as_array().into_iter().flatten();
            let used = used.filter_map(|dependency| by_id(&dependency["pkg"]));
            let used = used.map(named).filter(|used| names.contains(used));
            all.push(Self::of(package, used));
        }
        all.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
        Ok(all)
    }

    fn of<'a>(package: &Value, used: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let manifest = PathBuf::from(field("manifest_path"));
        Self {
            name: field("name"),
            version: field("version"),
            license: field("license"),
            repository: field("repository"),
            directory: manifest.parent().map(Path::to_path_buf).unwrap_or_default(),
            is_foreign: !package["source"].is_null(),
            uses: used
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .collect(),
        }
    }

    /// Returns whether it is the package of the program.
    pub(super) fn is_root(&self) -> bool {
        self.name == ROOT
    }
}

fn named(package: &Value) -> (&str, &str) {
    let field = |name: &str| package[name].as_str().unwrap_or_default();
    (field("name"), field("version"))
}
