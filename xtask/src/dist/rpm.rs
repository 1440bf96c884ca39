//! Makes an RPM package of a tree.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{CONFIG, OWN_DIRECTORIES, Tree};
use super::{DESCRIPTION, LIMIT, PackagePlan, Packing, Platform, SCRIPTS, SUMMARY};
use crate::lab::process::text;

/// RPM's scripts: name, the one of Debian that does the same, and how its arguments follow from the number of versions
/// that will be installed.
const SCRIPTLETS: &[(&str, &str, &str)] = &[
    (
        "post",
        "postinst",
        "if [ \"$1\" -gt 1 ]; then set -- configure older; else set -- configure; fi",
    ),
    ("preun", "prerm", "[ \"$1\" = 0 ] || exit 0\nset -- remove"),
    ("postun", "postrm", "[ \"$1\" = 0 ] || exit 0\nset -- remove"),
];

/// Packs the tree.
pub(super) fn build(plan: &PackagePlan<'_>, tree: &Tree, platform: &Platform) -> Result<PathBuf> {
    let top = plan.out.join("rpmbuild");
    fs::create_dir_all(&top).with_context(|| format!("cannot create {}", top.display()))?;
    let top = fs::canonicalize(&top).context("no directory to build in")?;
    let specification = top.join("stream-router.spec");
    fs::write(&specification, specify(plan, tree)?)
        .with_context(|| format!("cannot write {}", specification.display()))?;
    let payload = match plan.packing {
        Packing::Small => "w9.xzdio",
        Packing::Fast => "w1.gzdio",
    };
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild
        .env("SOURCE_DATE_EPOCH", plan.version.epoch_secs().to_string())
        .args(["-bb", "--quiet", "--nodeps"])
        .arg(format!("--target={}-linux", platform.arch))
        .arg(format!("--define=_topdir {}", top.display()))
        .arg(format!("--define=_binary_payload {payload}"))
        // Nothing of the machine that it is made on.
        .args([
            "--define=_buildhost localhost",
            "--define=use_source_date_epoch_as_buildtime 1",
            "--define=_build_id_links none",
            "--define=__os_install_post %{nil}",
            "--define=debug_package %{nil}",
        ])
        .arg(&specification);
    let built = text(&mut rpmbuild, LIMIT);
    let name = format!("stream-router-{}-1.{}.rpm", plan.version.text(), platform.arch);
    let rpm = plan.out.join(&name);
    let placed = built.and_then(|_| {
        let from = top.join("RPMS").join(platform.arch).join(&name);
        fs::rename(&from, &rpm).with_context(|| format!("rpmbuild made no {}", from.display()))
    });
    fs::remove_dir_all(&top).with_context(|| format!("cannot remove {}", top.display()))?;
    placed?;
    Ok(rpm)
}

fn specify(plan: &PackagePlan<'_>, tree: &Tree) -> Result<String> {
    let root = fs::canonicalize(tree.root()).context("no tree to pack")?;
    // RPM finds out by itself which libraries the program needs.
    let mut text = format!(
        "Name: stream-router\n\
         Version: {}\n\
         Release: 1\n\
         Summary: {SUMMARY}\n\
         License: MIT OR Apache-2.0\n\
         URL: {}\n\
         Requires: systemd\n\
         Requires(post): coreutils\n\
         Suggests: bpftool\n\n\
         %description\n{DESCRIPTION}\n\n\
         %install\ncp --archive '{}/.' '%{{buildroot}}/'\n\n",
        plan.version.text(),
        env!("CARGO_PKG_REPOSITORY"),
        root.display(),
    );
    for (name, script, arguments) in SCRIPTLETS {
        let path = plan.workspace.join(SCRIPTS).join(script);
        let script = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // What Debian puts before systemctl asks a policy that others do not have.
        let script = script
            .replace("deb-systemd-invoke", "systemctl")
            .replace('%', "%%");
        let _ = writeln!(text, "%{name}\n{arguments}\n{script}");
    }
    text.push_str("%files\n%defattr(-,root,root,-)\n");
    for path in tree.walk()? {
        let place = path
            .strip_prefix(tree.root())
            .context("what is in a tree is below it")?;
        let own = OWN_DIRECTORIES
            .iter()
            .any(|directory| place.starts_with(directory));
        match (path.is_dir(), own) {
            (true, true) => text.push_str("%dir "),
            // Those of the system.
            (true, false) => continue,
            (false, _) if place.as_os_str() == CONFIG => text.push_str("%config(noreplace) "),
            (false, _) => {}
        }
        let _ = writeln!(text, "/{}", place.display());
    }
    Ok(text)
}
