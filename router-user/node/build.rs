//! Embeds the eBPF object that `cargo xtask build-ebpf` makes.

use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "STREAM_ROUTER_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = object_path();
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("stream-router.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=cannot read the eBPF object {}: {error}; build it with `cargo xtask build-ebpf`, or name one \
             in {VARIABLE}",
            object.display()
        );
    }
}

/// Returns the variable, or `ebpf/stream-router.o` in the target directory that holds this build's output directory.
fn object_path() -> PathBuf {
    if let Some(path) = env::var_os(VARIABLE) {
        return path.into();
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    // <target>[/<triple>]/<profile>/build/<package>/out
    let objects = out
        .ancestors()
        .skip(4)
        .take(2)
        .map(|target| target.join("ebpf/stream-router.o"));
    let mut objects = objects.collect::<Vec<_>>();
    let found = objects.iter().position(|object| Path::new(object).exists());
    objects.swap_remove(found.unwrap_or(0))
}
