//! The list of what is inside the program, for programs that look for known faults: a bill of materials.
//!
//! In the format of CycloneDX 1.5, <https://cyclonedx.org/docs/1.5/json/>.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::linked::Linked;
use super::{PackagePlan, Platform, time};

type Checksums = BTreeMap<(String, String), String>;

/// Writes the list.
pub(super) fn build(plan: &PackagePlan<'_>, linked: &[Linked], platform: &Platform) -> Result<PathBuf> {
    let lock = plan.workspace.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let checksums = checksums(&lock);
    let root = linked.iter().find(|package| package.is_root());
    let mut program = component(root.context("the program is not among its packages")?, &checksums);
    program["type"] = json!("application");
    program["name"] = json!("stream-router");
    program["version"] = json!(plan.version.text());
    let libraries = linked.iter().filter(|package| !package.is_root());
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time(plan.version, "--iso-8601=seconds")?,
            "component": program,
            "properties": [{"name": "target", "value": platform.triple()}],
        },
        "components": libraries.map(|package| component(package, &checksums)).collect::<Vec<_>>(),
        "dependencies": linked.iter().map(dependency).collect::<Vec<_>>(),
    });
    let file = plan.out.join(file_name(plan, platform));
    write(&file, &bill)?;
    Ok(file)
}

fn file_name(plan: &PackagePlan<'_>, platform: &Platform) -> String {
    format!("stream-router-{}-{}.cdx.json", plan.version.text(), platform.arch)
}

fn write(file: &Path, bill: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(bill).context("cannot write JSON")?;
    fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}

/// Returns the SHA-256 of each package that Cargo.lock has one of, by name and version.
fn checksums(lock: &str) -> Checksums {
    let packages = lock.split("[[package]]").skip(1);
    let entry = |package: &str| {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    packages.filter_map(entry).collect()
}

/// Returns how others refer to a package: by the address that programs know it by, if it is from the registry.
fn reference(name: &str, version: &str) -> String {
    // "+" begins what a server would read as a space.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(package: &Linked, checksums: &Checksums) -> Value {
    let reference = reference(&package.name, &package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
    });
    if package.is_foreign {
        component["purl"] = json!(reference);
    }
    if !package.license.is_empty() {
        // Of before there were expressions.
        let expression = package.license.replace('/', " OR ");
        component["licenses"] = json!([{"expression": expression}]);
    }
    if !package.repository.is_empty() {
        component["externalReferences"] = json!([{"type": "vcs", "url": package.repository}]);
    }
    if let Some(checksum) = checksums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

fn dependency(package: &Linked) -> Value {
    let uses = package.uses.iter();
    json!({
        "ref": reference(&package.name, &package.version),
        "dependsOn": uses.map(|(name, version)| reference(name, version)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_its_package() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\n\
            version = \"2.0.0+x\"\nsource = \"registry\"\nchecksum = \"beef\"\ndependencies = [\n \"a\",\n]\n";

        let checksums = checksums(lock);

        assert_eq!(checksums.len(), 1);
        assert_eq!(checksums[&("b".to_owned(), "2.0.0+x".to_owned())], "beef");
    }

    #[test]
    fn a_component_says_what_is_known_of_its_package() {
        let package = Linked {
            name: "b".to_owned(),
            version: "2.0.0+x".to_owned(),
            license: "MIT/Apache-2.0".to_owned(),
            repository: String::new(),
            directory: PathBuf::new(),
            is_foreign: true,
            uses: vec![("a".to_owned(), "1.0.0".to_owned())],
        };
        let checksums = [(("b".to_owned(), "2.0.0+x".to_owned()), "beef".to_owned())].into();

        assert_eq!(
            component(&package, &checksums),
            json!({
                "type": "library",
                "bom-ref": "pkg:cargo/b@2.0.0%2Bx",
                "name": "b",
                "version": "2.0.0+x",
                "purl": "pkg:cargo/b@2.0.0%2Bx",
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "hashes": [{"alg": "SHA-256", "content": "beef"}],
            })
        );
        assert_eq!(
            dependency(&package),
            json!({"ref": "pkg:cargo/b@2.0.0%2Bx", "dependsOn": ["pkg:cargo/a@1.0.0"]})
        );
    }
}
