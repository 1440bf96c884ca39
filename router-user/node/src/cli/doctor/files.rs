//! Checks the configuration and the key file.

use std::io;
use std::path::Path;

use super::finding::Finding;
use super::input::CheckInput;
use crate::config::{Config, ConfigError, INSTALLED_CONFIG};
use stream_router::p2p::identity::{self, IdentityError};

/// Judges the outcome of loading the configuration; `None` stands for no configuration.
pub(super) fn configuration(file: Option<&Path>, loaded: Option<&Result<Config, ConfigError>>) -> Finding {
    const CHECK: &str = "configuration";
    let (Some(file), Some(loaded)) = (file, loaded) else {
        return Finding::warning(
            CHECK,
            format!(
                "none given, and none at {INSTALLED_CONFIG}: the defaults are looked at; --config names one"
            ),
        );
    };
    let file = file.display();
    match loaded {
        Ok(config) if config.peers().is_empty() => Finding::warning(
            CHECK,
            format!("{file} is valid, but has no [[peer]]: nothing goes anywhere"),
        ),
        Ok(config) => Finding::ok(CHECK, format!("{file} is valid, {} peers", config.peers().len())),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            Finding::unknown(
                CHECK,
                format!("no permission for {file}; the rest is looked at with the defaults"),
            )
        }
        Err(error @ ConfigError::Read { source, .. }) => Finding::problem(
            CHECK,
            format!("{error}: {source}; the rest is looked at with the defaults"),
        ),
        Err(error) => Finding::problem(
            CHECK,
            format!(
                "{} mistakes, the first: {}; the rest is looked at with the defaults",
                error.problems().len(),
                error
                    .problems()
                    .first()
                    .map_or(String::new(), ToString::to_string)
            ),
        )
        .fix(format!("stream-router check --config {file}")),
    }
}

/// Checks that the node has an identity that nobody else can use.
pub(super) fn key(input: &CheckInput) -> Option<Finding> {
    let path = input.config.node().key();
    let loaded = identity::load(path).map(|keypair| keypair.public().to_peer_id().to_string());
    Some(judge_key(path, loaded, input.file.is_some()))
}

fn judge_key(path: &Path, loaded: Result<String, IdentityError>, is_configured: bool) -> Finding {
    const CHECK: &str = "key";
    let shown = path.display();
    let error = match loaded {
        Ok(peer) => return Finding::ok(CHECK, format!("{shown} is there and private; peer id {peer}")),
        Err(error) => error,
    };
    let detail = error.to_string();
    match error {
        IdentityError::Missing { .. } => {
            let fix = match path.parent() {
                Some(parent) if !parent.is_dir() => format!("mkdir -p {} && ", parent.display()),
                _ => String::new(),
            };
            let detail = format!("no key file {shown}");
            let finding = if is_configured {
                Finding::problem(CHECK, detail)
            } else {
                Finding::warning(CHECK, detail)
            };
            finding.fix(format!("{fix}stream-router keygen --out {shown}"))
        }
        IdentityError::Exposed { mode, .. } => Finding::problem(
            CHECK,
            format!("{shown} has mode {mode:04o}, so others than its owner can use it; a node refuses it"),
        )
        .fix(format!("chmod 600 {shown}")),
        IdentityError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Finding::unknown(
                CHECK,
                format!("no permission for {shown}; run doctor as the node's user or as root"),
            )
        }
        _ => Finding::problem(CHECK, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_key_is_judged_by_what_a_node_would_say_to_it() {
        let path = Path::new("/nowhere/identity.key");
        let missing = || {
            Err(IdentityError::Missing {
                path: path.to_owned(),
            })
        };
        let exposed = Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode: 0o644,
        });
        let denied = Err(IdentityError::Io {
            path: path.to_owned(),
            action: "open",
            source: io::ErrorKind::PermissionDenied.into(),
        });

        assert_eq!(judge_key(path, Ok("12D3".to_owned()), true).verdict, Verdict::Ok);
        assert_eq!(judge_key(path, missing(), false).verdict, Verdict::Warning);
        let finding = judge_key(path, missing(), true);
        assert_eq!(
            (finding.verdict, finding.fix.as_deref()),
            (
                Verdict::Problem,
                Some("mkdir -p /nowhere && stream-router keygen --out /nowhere/identity.key")
            )
        );
        let finding = judge_key(path, exposed, true);
        assert_eq!(
            (finding.verdict, finding.fix.as_deref()),
            (Verdict::Problem, Some("chmod 600 /nowhere/identity.key"))
        );
        assert_eq!(judge_key(path, denied, true).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_configuration_is_valid_or_named_with_its_first_mistake() {
        let file = Path::new("x.toml");
        let judged = |text: &str| configuration(Some(file), Some(&Config::parse(text, file)));

        assert_eq!(configuration(None, None).verdict, Verdict::Warning);
        assert_eq!(judged(crate::cli::defaults::DEFAULTS).verdict, Verdict::Warning);
        let wrong = judged("[device]\nname = \"a b\"\naddresses = [\"10.42.0.1/24\"]\n");
        assert_eq!(wrong.verdict, Verdict::Problem);
        assert!(wrong.detail.contains("x.toml:2: device.name"), "{}", wrong.detail);
    }
}
