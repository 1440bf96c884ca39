//! What a program takes in that embeds the library.

use std::collections::BTreeSet;
use std::process::Command;

/// The names and versions of everything that the library is built with.
fn packages(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "-p",
            "stream-router",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
            "--locked",
        ])
        .args(features)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let named = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| !line.is_empty()).map(named).collect()
}

fn assert_without(packages: &BTreeSet<String>, unwanted: &[&str]) {
    assert!(
        packages.iter().any(|package| package.starts_with("tokio ")),
        "{packages:?}"
    );
    for package in packages {
        let name = package.split(' ').next().unwrap_or_default();
        assert!(
            !unwanted.contains(&name),
            "{package} is in the tree of the library"
        );
    }
}

/// What only the node needs. That libp2p watches interfaces through rtnetlink is its own affair.
const OF_THE_NODE: [&str; 5] = ["aya", "axum", "clap", "ratatui", "tun"];

#[test]
fn the_library_takes_in_nothing_that_only_the_node_needs() {
    let packages = packages(&[]);

    assert_without(&packages, &OF_THE_NODE);
    assert!(
        packages
            .iter()
            .any(|package| package.starts_with("libp2p-swarm "))
    );
}

#[test]
fn without_its_default_features_the_library_is_small() {
    let packages = packages(&["--no-default-features"]);

    assert_without(&packages, &OF_THE_NODE);
    assert_without(
        &packages,
        &["libp2p", "libp2p-swarm", "rtnetlink", "rustls", "toml"],
    );
    assert!(packages.len() < 60, "{} packages: {packages:#?}", packages.len());
}
