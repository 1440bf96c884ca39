//! The modules of the library use each other in one direction.

use std::fs;
use std::path::{Path, PathBuf};

/// Each may use those before it.
const LAYERS: [&str; 6] = ["config", "egress", "receive", "p2p", "discovery", "router"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names at the top of the crate that a line of a file `depth` modules below it uses.
fn used(line: &str, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    let above = "super::".repeat(depth);
    for root in ["crate::", &above] {
        for (at, _) in line.match_indices(root) {
            let before = line.get(..at).unwrap_or_default();
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = line.get(at + root.len()..).unwrap_or_default();
            // One more `super::` leads out of a module of tests.
            let rest = rest.strip_prefix("super::").unwrap_or(rest);
            let group = rest.strip_prefix('{').and_then(|group| group.split('}').next());
            for path in group.unwrap_or(rest).split(',') {
                let name: String = path
                    .trim()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                names.push(name);
                if group.is_none() {
                    break;
                }
            }
        }
    }
    names
}

fn violations(file: &Path, text: &str, module: &str, depth: usize) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let Some(own) = layer(module) else {
        return vec![format!(
            "{}: the module {module} has no place among the layers {LAYERS:?}",
            file.display()
        )];
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for name in used(line, depth) {
            if layer(&name).is_some_and(|used| used > own) {
                found.push(format!(
                    "{}:{number}: {module} uses {name}, which comes after it in {LAYERS:?}: {}",
                    file.display(),
                    line.trim()
                ));
            }
        }
    }
    found
}

#[test]
fn a_module_uses_only_those_before_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut n_looked_at = 0;
    let mut found = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).expect("a source").with_extension("");
        let parts: Vec<_> = inside.iter().filter_map(|part| part.to_str()).collect();
        let module = *parts.first().expect("a name");
        if module == "lib" {
            continue;
        }
        n_looked_at += 1;
        let text = fs::read_to_string(&file).expect("a source");
        found.extend(violations(&file, &text, module, parts.len()));
    }
    assert!(n_looked_at > LAYERS.len(), "{n_looked_at} files");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_use_of_what_comes_later_is_found_however_it_is_written() {
    let look = |text: &str| violations(Path::new("src/egress/outbox.rs"), text, "egress", 2).len();

    assert_eq!(
        look("use crate::config::MAX;\n// crate::router\nuse super::router::X;"),
        0
    );
    assert_eq!(look("use crate::router::Peer;"), 1);
    assert_eq!(look("    let peer = crate::p2p::PeerId::random();"), 1);
    assert_eq!(look("use crate::{config::MAX, discovery, router::Peer};"), 2);
    assert_eq!(look("use super::super::router::Peer;"), 1);
    assert_eq!(look("use super::super::super::router::Peer;"), 1);
    assert_eq!(violations(Path::new("src/new.rs"), "", "new", 1).len(), 1);
}
