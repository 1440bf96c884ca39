//! Licences of the libraries that are inside the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::LIMIT;
use crate::lab::process::text;

const RULE: &str = "------------------------------------------------------------------------------";

/// Returns every library that the program is linked with, with its licence, and the texts and notices that came with
/// them.
///
/// # Errors
/// When cargo fails.
pub(super) fn text_of(workspace: &Path) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tree = Command::new(&cargo);
    tree.current_dir(workspace).args([
        "tree",
        "--offline",
        "--package=stream-router-node",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
    ]);
    // Lines such as `nix v0.31.3` or, of the workspace, `router-common v0.1.0 (/path)`.
    let linked = text(&mut tree, LIMIT)?;
    let linked: BTreeSet<(&str, &str)> = linked
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
        .arg(format!("--filter-platform={}", host(&cargo)?));
    let metadata: Value = serde_json::from_str(&text(&mut metadata, LIMIT)?).context("cargo metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;

    let mut list = String::from("Libraries inside stream-router, with their licences.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let (name, version) = (field("name"), field("version"));
        // What has no source is this workspace.
        if package["source"].is_null() || !linked.contains(&(name, version)) {
            continue;
        }
        let _ = writeln!(
            list,
            "{name} {version}: {} <{}>",
            field("license"),
            field("repository")
        );
        let directory = Path::new(field("manifest_path")).parent();
        for text in directory.map(licence_texts).transpose()?.unwrap_or_default() {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    for (text, packages) in texts {
        let _ = write!(list, "\n{RULE}\n{}:\n\n{text}\n", packages.join(", "));
    }
    Ok(list)
}

/// Returns what stands in the files of a package whose names say that they are about its licence.
fn licence_texts(directory: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeSet::new();
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        let tells = [
            "LICENSE",
            "LICENCE",
            "COPYING",
            "COPYRIGHT",
            "NOTICE",
            "UNLICENSE",
        ];
        if tells.iter().any(|prefix| name.starts_with(prefix)) && path.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            texts.insert(text.trim().to_owned());
        }
    }
    Ok(texts.into_iter().collect())
}

fn host(cargo: &std::ffi::OsStr) -> Result<String> {
    let printed = text(Command::new(cargo).args(["--version", "--verbose"]), LIMIT)?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("cargo does not say which host this is")?.to_owned())
}
