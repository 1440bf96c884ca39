//! What is in the packages, and that it is the same in all, each time.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, package, packages};
use crate::support::machine;
use xtask::lab::process::{output, text};
use xtask::lab::{CleanRoot, ScratchDir, Traces};

const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// The units, and names by which they can be looked at.
const UNITS: [(&str, &str); 2] = [
    ("stream-router.service", "stream-router.service"),
    ("stream-router@.service", "stream-router@a.service"),
];
/// The most that a unit may expose, in tenths.
const EXPOSURE: &str = "--threshold=20";

#[test]
fn packages_are_the_same_each_time_and_have_the_same_files() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("packages").unwrap();
    let first = packages().unwrap();
    let second = package(&scratch.path().join("second")).unwrap();

    for (one, other) in first.files().iter().zip(second.files()) {
        assert_eq!(one.file_name(), other.file_name());
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "{}",
            one.display()
        );
    }
    let out = first.sums.parent().unwrap();
    assert_eq!(
        fs::read_dir(out).unwrap().count(),
        first.files().len(),
        "nothing else is left there"
    );
    let mut check = Command::new("sha256sum");
    check.current_dir(out).arg("--check").arg(&first.sums);
    assert_eq!(text(&mut check, LIMIT).unwrap().lines().count(), 5);

    let of_deb = text(Command::new("dpkg-deb").arg("--contents").arg(&first.deb), LIMIT).unwrap();
    let of_deb: BTreeSet<&str> = of_deb
        .lines()
        .filter_map(|line| line.split_once("./"))
        .map(|(_, path)| path)
        .filter(|path| !path.is_empty())
        .collect();
    let of_tarball = text(Command::new("tar").arg("-tzf").arg(&first.tarball), LIMIT).unwrap();
    let of_tarball = of_tarball
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| path)
        .filter(|path| !path.is_empty());
    let mut of_tarball: BTreeSet<&str> = of_tarball.collect();
    assert!(of_tarball.remove("usr/share/doc/stream-router/INSTALL"));
    let of_rpm = text(
        Command::new("rpm")
            .args(["--query", "--list", "--package"])
            .arg(&first.rpm),
        LIMIT,
    )
    .unwrap();
    // Directories of the system are not listed, and directories look like files.
    let mut of_rpm: BTreeSet<&str> = of_rpm.lines().map(|path| path.trim_start_matches('/')).collect();
    for licence in LICENCES {
        let place = format!("usr/share/doc/stream-router/{licence}");
        assert!(of_tarball.remove(&*place), "{licence}");
        assert!(of_rpm.remove(&*place), "{licence}");
    }
    assert_eq!(of_tarball, of_deb);
    let files = |paths: &BTreeSet<&str>| -> BTreeSet<String> {
        let files = paths.iter().filter(|path| !path.ends_with('/'));
        files.map(|path| (*path).to_owned()).collect()
    };
    let of_rpm: BTreeSet<&str> = of_rpm
        .into_iter()
        .filter(|path| !of_deb.contains(&*format!("{path}/")))
        .collect();
    assert_eq!(files(&of_rpm), files(&of_deb));
    for file in [
        "etc/stream-router.toml",
        "usr/bin/stream-router",
        "usr/lib/systemd/system/stream-router.service",
        "usr/lib/systemd/system/stream-router@.service",
        "usr/lib/sysusers.d/stream-router.conf",
        "usr/lib/tmpfiles.d/stream-router.conf",
        "usr/share/bash-completion/completions/stream-router",
        "usr/share/doc/stream-router/THIRD-PARTY.gz",
        "usr/share/doc/stream-router/copyright",
        "usr/share/man/man1/stream-router-run.1.gz",
        "usr/share/man/man1/stream-router.1.gz",
        "usr/share/man/man5/stream-router.toml.5.gz",
        "usr/share/stream-router/alerts.yml",
        "usr/share/stream-router/grafana-dashboard.json",
    ] {
        assert!(of_deb.contains(file), "{file} is not among {of_deb:?}");
    }

    let bill: Value = serde_json::from_slice(&fs::read(&first.sbom).unwrap()).unwrap();
    let components = bill["components"].as_array().unwrap();
    let tokio = components
        .iter()
        .find(|component| component["name"] == "tokio")
        .unwrap();
    assert_eq!(tokio["licenses"][0]["expression"], "MIT");
    assert_eq!(tokio["hashes"][0]["content"].as_str().unwrap().len(), 64);
    let root = &bill["metadata"]["component"]["bom-ref"];
    let dependencies = bill["dependencies"].as_array().unwrap();
    let of_root = dependencies
        .iter()
        .find(|dependency| dependency["ref"] == *root)
        .unwrap();
    assert!(
        of_root["dependsOn"]
            .as_array()
            .unwrap()
            .contains(&tokio["bom-ref"])
    );
}

#[test]
fn the_image_runs_and_has_what_its_list_says() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("image").unwrap();
    let packages = packages().unwrap();
    let image = scratch.path().join("image");
    unpack(&packages.image, &image).unwrap();
    let json =
        |place: &str| -> Value { serde_json::from_slice(&fs::read(image.join(place)).unwrap()).unwrap() };
    let blob = |descriptor: &Value| -> String {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let place = format!("blobs/{digest}");
        let file = image.join(&place);
        let size = fs::metadata(&file).unwrap().len();
        assert_eq!(descriptor["size"], size, "{descriptor}");
        let sum = text(Command::new("sha256sum").arg(&file), LIMIT).unwrap();
        assert!(
            place.ends_with(sum.split_whitespace().next().unwrap()),
            "{descriptor}"
        );
        place
    };

    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    let config = blob(&manifest["config"]);
    let layer = blob(&manifest["layers"][0]);
    let list = json("manifest.json");
    assert_eq!(list[0]["Config"], *config);
    assert_eq!(list[0]["Layers"], serde_json::json!([layer]));
    assert_eq!(list[0]["RepoTags"][0], "stream-router:0.1.0-test");
    let config = json(&config);
    let mut unzip = Command::new("sh");
    unzip
        .args(["-c", "gzip -dc \"$1\" | sha256sum", "sh"])
        .arg(image.join(&layer));
    let sum = text(&mut unzip, LIMIT).unwrap();
    let id = format!("sha256:{}", sum.split_whitespace().next().unwrap());
    assert_eq!(config["rootfs"]["diff_ids"][0], *id);

    let root = scratch.path().join("root");
    unpack(&image.join(layer), &root).unwrap();
    let entry = config["config"]["Entrypoint"][0].as_str().unwrap();
    let mut run = Command::new("chroot");
    run.arg(&root).args([entry, "--version"]);
    assert!(text(&mut run, LIMIT).unwrap().starts_with("stream-router "));
    assert!(root.join("var/lib/stream-router").is_dir());
    assert!(root.join("run/stream-router").is_dir());
}

#[test]
fn an_rpm_package_comes_and_goes_as_that_of_debian_does() {
    let _machine = machine::shared();
    let packages = packages().unwrap();
    let root = CleanRoot::for_package(&packages.deb).unwrap();
    let rpm = |arguments: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg(format!("--root={}", root.path().display()))
            .arg("--dbpath=/var/lib/rpm");
        text(rpm.args(arguments), LIMIT).unwrap()
    };
    let before = Traces::of(&root).unwrap();

    // What it needs is there, in packages of Debian.
    rpm(&["--install", "--nodeps", packages.rpm.to_str().unwrap()]);

    assert_eq!(rpm(&["--verify", "--nodeps", "stream-router"]), "");
    assert_eq!(
        rpm(&["--query", "--configfiles", "stream-router"]).trim(),
        "/etc/stream-router.toml"
    );
    let needed = rpm(&["--query", "--requires", "stream-router"]);
    for library in ["libc.so.6", "systemd"] {
        assert!(needed.contains(library), "{needed}");
    }
    let owner = root
        .run(&["stat", "--format=%U:%G %a", "/var/lib/stream-router"])
        .unwrap();
    assert_eq!(owner.trim(), "stream-router:stream-router 700");
    root.run(&["stream-router", "keygen"]).unwrap();
    root.run(&["stream-router", "check", "--config", "/etc/stream-router.toml"])
        .unwrap();

    rpm(&["--erase", "stream-router"]);
    let after = Traces::of(&root).unwrap();
    // Directories that others put files into too are those of packages that this root lacks.
    let left = after.files.difference(&before.files);
    let left = left.filter(|path| path.contains("stream-router") || root.path().join(path).is_file());
    let left: Vec<&String> = left.filter(|path| !path.starts_with("var/lib/rpm/")).collect();
    assert_eq!(
        left,
        ["var/lib/stream-router", "var/lib/stream-router/identity.key"]
    );
}

#[test]
fn systemd_understands_the_units_and_finds_them_closed() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("units").unwrap();
    let packages = packages().unwrap();
    let root = scratch.path().join("root");
    let mut unpack = Command::new("dpkg-deb");
    text(unpack.arg("--extract").arg(&packages.deb).args([&root]), LIMIT).unwrap();
    let program = root.join("usr/bin/stream-router");

    for (file, unit) in UNITS {
        let installed = root.join("usr/lib/systemd/system").join(file);
        let text = fs::read_to_string(installed).unwrap();
        // Where the program is, as systemd looks for it.
        let unit = scratch.path().join(unit);
        let text = text.replace("/usr/bin/stream-router", program.to_str().unwrap());
        fs::write(&unit, text).unwrap();
        let said = analyze(&["verify", "--man=no"], &unit).unwrap();
        assert_eq!(said, "", "{file}");
        analyze(&["security", "--offline=yes", "--no-pager", EXPOSURE], &unit).unwrap();
    }
}

/// Returns what systemd-analyze finds wrong with a unit.
fn analyze(how: &[&str], unit: &Path) -> Result<String> {
    let mut analyze = Command::new("systemd-analyze");
    let said = output(analyze.args(how).arg(unit), LIMIT)?;
    let printed = String::from_utf8_lossy(&said.stdout);
    let errors = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{printed}{errors}");
    Ok(errors.into_owned())
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut tar = Command::new("tar");
    text(
        tar.arg("--extract")
            .arg("--file")
            .arg(archive)
            .arg("--directory")
            .arg(to),
        LIMIT,
    )?;
    Ok(())
}
