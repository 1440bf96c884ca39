//! `stream-router check`

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::doctor;
use super::host_routes::look;
use super::outcome::{Outcome, print};
use super::units::called;
use super::which::WhichFile;
use crate::config::Config;
use crate::node::peer_files::not_its_own_peer;
use stream_router::p2p::PeerId;

/// What is wrong beyond the file itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// This host cannot have it.
    #[error(
        "the file is valid, and this host is not ready for it: {n} of the checks of this host found a problem"
    )]
    Host {
        /// Findings that are problems; they have been printed.
        n: usize,
    },
}

/// Validates a configuration, and with `live` looks whether this host can have it.
pub(super) fn check(which: &WhichFile, live: bool) -> Outcome {
    let file = &which.path()?;
    let config = Config::load(file)?;
    let own = not_its_own_peer(&config)?;
    if live {
        let found = doctor::before_a_start(&config, file)?;
        for finding in &found.lines {
            print(finding.trim_end())?;
        }
        for overlap in look(&config)?.refuse()? {
            print(format_args!("note: {overlap}"))?;
        }
        if found.n_problems > 0 {
            return Err(Box::new(CheckError::Host { n: found.n_problems }));
        }
    }
    for note in similar_ids(&config, own) {
        print(format_args!("note: {note}"))?;
    }
    let disabled = match config.disabled().len() {
        0 => String::new(),
        n => format!(", {n} more not enabled"),
    };
    print(format_args!(
        "{}: valid, {} peers{disabled}",
        file.display(),
        config.peers().len()
    ))
}

/// Finds ids that differ in one character, of which one may be mistyped: an id has no checksum.
fn similar_ids(config: &Config, own: Option<PeerId>) -> Vec<String> {
    let own = own.map(|id| (format!("this node's own id {id}"), id.to_string()));
    let peers = config.peers().iter().map(|peer| {
        let id = peer.id().to_string();
        (format!("the id of {}", called(peer.name(), &id)), id)
    });
    let ids: Vec<_> = own.into_iter().chain(peers).collect();
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let mut notes = Vec::new();
    for (index, (whose, id)) in ids.iter().enumerate() {
        for place in 0..id.len() {
            let mut masked = DefaultHasher::new();
            (place, id.get(..place), id.get(place + 1..)).hash(&mut masked);
            let Some((other_whose, other)) = seen.insert(masked.finish(), index).and_then(|at| ids.get(at))
            else {
                continue;
            };
            let n_different = id.chars().zip(other.chars()).filter(|(a, b)| a != b).count();
            if n_different == 1 && id.len() == other.len() {
                notes.push(format!(
                    "{whose} and {other_whose} differ in one character: is one of them mistyped?"
                ));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::tests::IDS;

    fn config(ids: &[&str]) -> Result<Config, crate::config::ConfigError> {
        let peers = ids.iter().enumerate();
        let peers = peers.map(|(n, id)| format!("[[peer]]\nid = '{id}'\nallowed_ips = ['10.43.{n}.0/24']\n"));
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n{}",
            peers.collect::<String>()
        );
        Config::parse(&text, Path::new("sr.toml"))
    }

    /// Every id that differs from this one in its character at `place`, and is valid.
    fn mistyped(id: &str, place: usize) -> Vec<String> {
        let letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        let other = letters
            .chars()
            .map(|letter| format!("{}{letter}{}", &id[..place], &id[place + 1..]));
        other
            .filter(|other| other != id && config(&[other]).is_ok())
            .collect()
    }

    #[test]
    fn ids_that_differ_in_one_character_are_named() {
        let wrong = &mistyped(IDS[0], 30)[0];
        let similar = |ids: &[&str], own: Option<&str>| {
            similar_ids(&config(ids).unwrap(), own.map(|own| own.parse().unwrap()))
        };

        assert_eq!(similar(&IDS, None), Vec::<String>::new());
        let [note] = &similar(&[IDS[0], IDS[1], wrong], None)[..] else {
            panic!("one note");
        };
        assert!(
            note.starts_with(&format!(
                "the id of {wrong} and the id of {} differ in one",
                IDS[0]
            )),
            "{note}"
        );
        let [note] = &similar(&[wrong], Some(IDS[0]))[..] else {
            panic!("one note");
        };
        assert!(note.contains("this node's own id"), "{note}");
    }

    #[test]
    fn about_half_of_the_ids_that_are_mistyped_hold_no_key() {
        let places = 20..50;
        let n_all = 57 * places.len();
        let n_valid: usize = places.map(|place| mistyped(IDS[0], place).len()).sum();
        assert!(
            (n_all * 4 / 10..n_all * 6 / 10).contains(&n_valid),
            "{n_valid} of {n_all}"
        );
    }
}
