//! The `[hooks]` section.

use super::problem::{Located, Problems};
use super::reader::Table;

const ALLOWED: &str = "a program by its absolute path, and then its arguments";

/// Commands that the node runs as its state changes, each a program and its arguments; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HooksSection {
    up: Vec<String>,
    down: Vec<String>,
    peer_up: Vec<String>,
    peer_down: Vec<String>,
}

impl HooksSection {
    /// Returns what is run once the node is up.
    pub fn up(&self) -> &[String] {
        &self.up
    }

    /// Returns what is run as the node stops.
    pub fn down(&self) -> &[String] {
        &self.down
    }

    /// Returns what is run as a peer gets a connection and has had none.
    pub fn peer_up(&self) -> &[String] {
        &self.peer_up
    }

    /// Returns what is run as a peer has no connection any more.
    pub fn peer_down(&self) -> &[String] {
        &self.peer_down
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let [up, down, peer_up, peer_down] =
            ["up", "down", "peer_up", "peer_down"].map(|name| command(&mut table, name, problems));
        table.finish(problems);
        Self {
            up,
            down,
            peer_up,
            peer_down,
        }
    }
}

fn command(table: &mut Table<'_>, name: &'static str, problems: &mut Problems) -> Vec<String> {
    let place = table.absent(name);
    let Some(words) = table.strings(name, ALLOWED, problems) else {
        return Vec::new();
    };
    match words.first() {
        None => problems.add(&place, "is empty", ALLOWED),
        Some(Located { place, value }) if !value.starts_with('/') => {
            problems.add(place, format!("{value:?} is no absolute path"), ALLOWED);
        }
        Some(_) => {}
    }
    for Located { place, value } in &words {
        if value.contains('\0') {
            problems.add(place, "has a zero byte", ALLOWED);
        }
    }
    words.into_iter().map(|word| word.value).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, HooksSection};

    fn hooks(text: &str) -> Result<HooksSection, String> {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n[hooks]\n{text}");
        match Config::parse(&text, Path::new("sr.toml")) {
            Ok(config) => Ok(config.hooks().clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_hook_is_a_program_by_its_path_with_arguments() {
        let read = hooks("up = ['/bin/a', 'b c']\npeer_down = ['/bin/d']\n").unwrap();
        assert_eq!(read.up(), ["/bin/a", "b c"]);
        assert_eq!((read.down(), read.peer_up()), (&[][..], &[][..]));
        assert_eq!(read.peer_down(), ["/bin/d"]);

        for (text, wrong) in [
            ("up = []", "hooks.up: is empty"),
            ("up = ['a']", "hooks.up[0]: \"a\" is no absolute path"),
            ("up = ['/a', \"\\u0000\"]", "hooks.up[1]: has a zero byte"),
            ("up = '/a'", "hooks.up: expected an array of strings"),
            ("peer = ['/a']", "hooks.peer: unknown field"),
        ] {
            let error = hooks(text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
