//! Which module of the crate may import which, and that no two files need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The modules, inner to outer, and what each may import: a module knows none that stands below it.
const LAYERS: [(&str, &[&str]); 11] = [
    ("private_file", &[]),
    ("config", &[]),
    ("logs", &["config"]),
    ("spans", &[]),
    ("otlp", &["private_file", "config", "spans"]),
    ("kernel", &[]),
    ("device", &[]),
    ("control", &[]),
    ("metrics", &["private_file", "control"]),
    (
        "node",
        &[
            "private_file",
            "config",
            "logs",
            "spans",
            "otlp",
            "kernel",
            "device",
            "control",
            "metrics",
        ],
    ),
    ("cli", &["config", "logs", "kernel", "device", "control", "node"]),
];

#[test]
fn a_module_imports_only_those_that_its_layer_may() -> Result<()> {
    let sources = Sources::read()?;
    let mut seen = BTreeSet::new();
    for (file, targets) in sources.edges() {
        let from = top(&file);
        for to in targets.iter().map(|target| top(target)) {
            if from.is_empty() || to.is_empty() || to == from {
                continue;
            }
            let allowed = LAYERS.iter().find(|(module, _)| *module == from);
            let allowed = allowed
                .with_context(|| format!("{from} has no layer: add it to LAYERS"))?
                .1;
            assert!(
                allowed.contains(&to.as_str()),
                "src/{file}.rs imports {to}, but {from} may import {allowed:?} only: move what both need to the inner of \
                 the two, or hand it over as an argument"
            );
            seen.insert((from.clone(), to));
        }
    }
    for (at, (module, allowed)) in LAYERS.iter().enumerate() {
        for inner in *allowed {
            let is_inner = LAYERS[..at].iter().any(|(other, _)| other == inner);
            assert!(
                is_inner,
                "{module} may not import {inner}, which is no inner layer"
            );
            let edge = ((*module).to_owned(), (*inner).to_owned());
            assert!(
                seen.contains(&edge),
                "{module} does not import {inner}: take it out of LAYERS"
            );
        }
    }
    Ok(())
}

#[test]
fn no_two_files_need_each_other() -> Result<()> {
    let sources = Sources::read()?;
    let edges = sources.edges();
    let mut circles = BTreeSet::new();
    for file in edges.keys() {
        let circle: Vec<_> = reachable(&edges, file)
            .into_iter()
            .filter(|other| reachable(&edges, other).contains(file))
            .collect();
        if circle.contains(file) {
            circles.insert(circle.join(", "));
        }
    }
    assert_eq!(
        circles,
        BTreeSet::new(),
        "files that use each other, directly or through others: move what both need to a file of its own"
    );
    Ok(())
}

#[test]
fn a_use_tree_is_a_path_for_each_leaf() {
    let paths = use_paths("crate::config::{Config, node::{self, Listen as At}}");
    assert_eq!(
        paths,
        [
            ("Config".to_owned(), segments("crate::config::Config")),
            ("node".to_owned(), segments("crate::config::node")),
            ("At".to_owned(), segments("crate::config::node::Listen")),
        ]
    );
}

/// Every file of the crate, named by its path below `src` without the extension; unit tests are left out.
struct Sources {
    texts: BTreeMap<String, String>,
    /// For each file, the names that it imports and the paths they stand for.
    imports: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Sources {
    fn read() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut texts = BTreeMap::new();
        read_directory(&root, "", &mut texts)?;
        assert!(texts.len() > 100, "the sources are not in {}", root.display());
        let mut sources = Self {
            texts,
            imports: BTreeMap::new(),
        };
        for (file, text) in &sources.texts {
            let mut imports = BTreeMap::new();
            for (_, tree) in uses(text) {
                for (name, path) in use_paths(&tree) {
                    if let Some(path) = sources.absolute(file, &path) {
                        imports.insert(name, path);
                    }
                }
            }
            sources.imports.insert(file.clone(), imports);
        }
        Ok(sources)
    }

    /// For each file, the files whose items it uses. To declare a module and to re-export its items is no use.
    fn edges(&self) -> BTreeMap<String, BTreeSet<String>> {
        let edges = self.texts.iter().map(|(file, text)| {
            let mut paths = Vec::new();
            let mut code = text.clone();
            for (statement, tree) in uses(text) {
                code = code.replace(&statement, "");
                let is_exported = statement.starts_with("pub");
                paths.extend(use_paths(&tree).into_iter().filter_map(|(_, path)| {
                    let path = self.absolute(file, &path)?;
                    let is_own = is_exported && path.join("/").starts_with(&format!("{file}/"));
                    (!is_own).then_some(path)
                }));
            }
            paths.extend(
                inline_paths(&code)
                    .iter()
                    .filter_map(|path| self.absolute(file, path)),
            );
            let targets = paths.iter().filter_map(|path| self.defined_in(path));
            let targets = targets.filter(|target| target != file);
            (file.clone(), targets.collect())
        });
        edges.collect()
    }

    /// The path from the crate's root on; `None` for one into another crate.
    fn absolute(&self, file: &str, path: &[String]) -> Option<Vec<String>> {
        let mut base = if file == "lib" {
            Vec::new()
        } else {
            segments(&file.replace('/', "::"))
        };
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first if self.texts.contains_key(&format!("{file}/{first}")) => {}
            _ => return None,
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that has the item of a path, behind the re-exports on the way.
    fn defined_in(&self, path: &[String]) -> Option<String> {
        let mut path = path.to_vec();
        loop {
            let n_modules = (1..=path.len())
                .rev()
                .find(|n| self.texts.contains_key(&path[..*n].join("/")))?;
            let file = path[..n_modules].join("/");
            let import = path
                .get(n_modules)
                .and_then(|name| self.imports.get(&file)?.get(name));
            match import {
                Some(target) if !path.starts_with(target) => {
                    path = [target.as_slice(), &path[n_modules + 1..]].concat();
                }
                _ => return Some(file),
            }
        }
    }
}

fn read_directory(directory: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a name of another kind")?;
        let name = format!("{prefix}{stem}");
        if stem == "tests" || name == "main" {
            continue;
        }
        if path.is_dir() {
            read_directory(&path, &format!("{name}/"), texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let lines = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default());
            let text = lines.collect::<Vec<_>>().join("\n");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            texts.insert(name, code.to_owned());
        }
    }
    Ok(())
}

/// The `use` statements of a text, whole and as their trees.
fn uses(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let line = rest[..at].rfind('\n').map_or(0, |at| at + 1);
        let before = rest[line..at].trim();
        let Some(len) = rest[at..].find(';') else { break };
        if before.is_empty() || (before.starts_with("pub") && !before.contains(' ')) {
            let tree = rest[at + 4..at + len]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            found.push((rest[line..=at + len].trim().to_owned(), tree));
        }
        rest = &rest[at + 4..];
    }
    found
}

/// The leaves of a tree: the name that each brings in, and its path.
fn use_paths(tree: &str) -> Vec<(String, Vec<String>)> {
    let Some((prefix, inside)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = segments(path);
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = if name.is_empty() {
            path.last().cloned().unwrap_or_default()
        } else {
            name.to_owned()
        };
        return vec![(name, path)];
    };
    let inside = inside.trim_end();
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inside[start..at].trim();
                if !part.is_empty() {
                    found.extend(use_paths(&format!("{prefix}{part}")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The paths that stand in code.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    // Who may see an item is no use of a module.
    let code = code.replace("pub(in crate::", "pub(");
    let paths = code.split(|c| !is_path(c)).filter(|path| path.contains("::"));
    paths.map(segments).collect()
}

fn segments(path: &str) -> Vec<String> {
    let segments = path
        .split("::")
        .map(str::trim)
        .filter(|segment| !segment.is_empty());
    segments.map(str::to_owned).collect()
}

fn top(file: &str) -> String {
    let module = file.split('/').next().unwrap_or_default();
    if module == "lib" {
        String::new()
    } else {
        module.to_owned()
    }
}

fn reachable(edges: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(file) = next.pop() {
        for target in edges.get(&file).into_iter().flatten() {
            if reached.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    reached
}
