//! Makes an image for containers: one layer, in the layout of OCI and with the list that `docker load` reads.
//!
//! <https://github.com/opencontainers/image-spec> says what the files mean.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::tree::{DOC, PROGRAM, Tree};
use super::{LIMIT, PackagePlan, Platform, SUMMARY, archive, gzip, sha256, time};
use crate::lab::process::text;

const BLOBS: &str = "blobs/sha256";
/// Directories that a node writes to: its key, its control socket, and what programs want.
const DIRECTORIES: &[&str] = &["etc", "run/stream-router", "tmp", "var/lib/stream-router"];

/// What a file of the image is, by what it holds.
struct Blob {
    digest: String,
    size: u64,
}

/// Packs the program, the libraries that it needs, and the licences of both.
pub(super) fn build(plan: &PackagePlan<'_>, tree: &Tree, platform: &Platform) -> Result<PathBuf> {
    let scratch = Tree::new(plan.out.join("image"))?;
    let image = assemble(plan, tree, platform, &scratch);
    fs::remove_dir_all(scratch.root()).context("cannot remove what the image was made of")?;
    image
}

fn assemble(plan: &PackagePlan<'_>, tree: &Tree, platform: &Platform, scratch: &Tree) -> Result<PathBuf> {
    let version = plan.version.text();
    let layer = Tree::new(scratch.root().join("layer"))?;
    for place in [
        PROGRAM.to_owned(),
        format!("{DOC}/LICENSE-APACHE"),
        format!("{DOC}/LICENSE-MIT"),
        format!("{DOC}/THIRD-PARTY.gz"),
    ] {
        layer.copy(&tree.root().join(&place), &place)?;
    }
    if !platform.is_static {
        libraries(&layer, platform)?;
    }
    for directory in DIRECTORIES {
        layer.make_directory(directory)?;
    }
    layer.settle(plan.version)?;

    let layout = Tree::new(scratch.root().join("layout"))?;
    let packed = scratch.root().join("layer.tar");
    archive(layer.root(), &["."], &packed, plan.version)?;
    let diff_id = sha256(&packed)?;
    let layer = keep(&layout, &gzip(&packed, plan.packing)?)?;
    let created = time(plan.version, "--iso-8601=seconds")?;
    let config = json!({
        "created": created,
        "architecture": platform.debian_arch,
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}")],
            "Cmd": ["run", "--make-key", "--config", "/etc/stream-router.toml"],
            "Env": ["PATH=/usr/bin"],
            "Volumes": {"/var/lib/stream-router": {}},
            "Labels": labels(version),
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": created, "created_by": "cargo xtask dist"}],
    });
    let config = keep_json(&layout, scratch, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    });
    let mut manifest =
        keep_json(&layout, scratch, &manifest)?.descriptor("application/vnd.oci.image.manifest.v1+json");
    // A tag has no "+".
    let tag = version.replace('+', "-");
    manifest["platform"] = json!({"architecture": platform.debian_arch, "os": "linux"});
    let name = format!("stream-router:{tag}");
    manifest["annotations"] = json!({
        // Podman takes a tag alone for the name of the image.
        "org.opencontainers.image.ref.name": name,
        // What Docker looks for when it keeps images as containerd does.
        "io.containerd.image.name": format!("docker.io/library/{name}"),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let list = json!([{
        "Config": config.place(),
        "RepoTags": [name],
        "Layers": [layer.place()],
    }]);
    for (place, content) in [
        ("oci-layout", &json!({"imageLayoutVersion": "1.0.0"})),
        ("index.json", &index),
        ("manifest.json", &list),
    ] {
        layout.write(place, &content.to_string())?;
    }
    layout.settle(plan.version)?;
    let image = plan.out.join(format!(
        "stream-router-{version}-{}.oci.tar",
        platform.debian_arch
    ));
    let parts = ["blobs", "index.json", "manifest.json", "oci-layout"];
    archive(layout.root(), &parts, &image, plan.version)?;
    Ok(image)
}

impl Blob {
    fn place(&self) -> String {
        format!("{BLOBS}/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.size,
        })
    }
}

fn labels(version: &str) -> Value {
    json!({
        "org.opencontainers.image.title": "stream-router",
        "org.opencontainers.image.description": SUMMARY,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
    })
}

/// Puts a file where its content says.
fn keep(layout: &Tree, file: &Path) -> Result<Blob> {
    let digest = sha256(file)?;
    layout.copy(file, &format!("{BLOBS}/{digest}"))?;
    let size = fs::metadata(file)
        .with_context(|| format!("cannot look at {}", file.display()))?
        .len();
    Ok(Blob { digest, size })
}

fn keep_json(layout: &Tree, scratch: &Tree, content: &Value) -> Result<Blob> {
    scratch.write("blob.json", &content.to_string())?;
    keep(layout, &scratch.root().join("blob.json"))
}

/// Copies the libraries that the program needs, with the notices of the packages that they are from.
fn libraries(layer: &Tree, platform: &Platform) -> Result<()> {
    if !platform.is_native() {
        bail!(
            "the image of a program for another machine needs one that is static: take a target such as {}-unknown-linux-musl",
            platform.arch
        );
    }
    let listed = text(Command::new("ldd").arg(layer.root().join(PROGRAM)), LIMIT)?;
    let mut packages = BTreeSet::new();
    // Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)` and `/lib64/ld-linux-x86-64.so.2 (0x...)`.
    for path in listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
    {
        layer.copy(Path::new(path), path.trim_start_matches('/'))?;
        let file = fs::canonicalize(path).with_context(|| format!("no {path}"))?;
        packages.insert(owner(&file)?);
    }
    for package in packages {
        let place = format!("usr/share/doc/{package}/copyright");
        layer.copy(&Path::new("/").join(&place), &place)?;
    }
    Ok(())
}

/// Returns the Debian package that a file is from. What is below /usr may be listed as it was called before.
fn owner(file: &Path) -> Result<String> {
    let file = file.display().to_string();
    let ask = |path: &str| text(Command::new("dpkg-query").arg("--search").arg(path), LIMIT);
    let found = ask(&file).or_else(|_| ask(file.trim_start_matches("/usr")))?;
    let package = found.split([':', ',']).next().unwrap_or_default();
    Ok(package.to_owned())
}
