//! The modules of a kernel: which of them a machine needs, each after those it depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// What the tests use of a kernel, where it is a module and not built in.
const WANTED: &[&str] = &[
    "tun",
    "veth",
    "dummy",
    "macvlan",
    "bridge",
    "vxlan",
    "sch_ingress",
    "sch_tbf",
    "sch_prio",
    "sch_fq_codel",
    "cls_bpf",
    "nf_tables",
    "nft_numgen",
    "nft_limit",
    "nft_ct",
    "nft_masq",
    "nft_chain_nat",
    "nft_reject_inet",
];

/// Returns the files of the wanted modules below `root`, in an order in which they can be loaded.
///
/// # Errors
/// When a directory or a module cannot be read.
pub(super) fn in_order(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    collect(root, &mut files)?;
    let mut ordered = Vec::new();
    for name in WANTED {
        add(name, &files, &mut ordered)?;
    }
    Ok(ordered)
}

/// Returns the bytes of a module, whether it is compressed or not.
///
/// # Errors
/// When it cannot be read or unpacked.
pub(super) fn contents(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(file)
        .output()
        .with_context(|| format!("cannot start {tool}"))?;
    anyhow::ensure!(output.status.success(), "{tool} cannot unpack {}", file.display());
    Ok(output.stdout)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<PathBuf>) -> Result<()> {
    // What no file has is built in, or this kernel does without.
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    if ordered.contains(file) {
        return Ok(());
    }
    for dependency in dependencies(&contents(file)?) {
        add(&dependency, files, ordered)?;
    }
    ordered.push(file.clone());
    Ok(())
}

/// Returns the names after `depends=` in the information of a module.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(value.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
            continue;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some((module, _)) = name.split_once(".ko") {
            files.insert(module.replace('-', "_"), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stand_behind_their_key() {
        let module = b"ELF\0license=GPL\0depends=nf-tables,udp_tunnel\0retpoline=Y\0";

        assert_eq!(dependencies(module), ["nf_tables", "udp_tunnel"]);
        assert_eq!(dependencies(b"ELF\0depends=\0name=tun\0"), [""; 0]);
    }
}
