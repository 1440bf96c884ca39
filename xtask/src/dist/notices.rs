//! Licences of the libraries that are inside the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::linked::Linked;

const RULE: &str = "------------------------------------------------------------------------------";

/// Returns every library that the program is linked with, with its licence, and the texts and notices that came with
/// them.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn text_of(linked: &[Linked]) -> Result<String> {
    let mut list = String::from("Libraries inside stream-router, with their licences.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked.iter().filter(|package| package.is_foreign) {
        let Linked {
            name,
            version,
            license,
            repository,
            ..
        } = package;
        let _ = writeln!(list, "{name} {version}: {license} <{repository}>");
        for text in licence_texts(&package.directory)? {
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
