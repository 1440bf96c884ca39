//! Files with peers beside the main file: those of `sr.d` beside `sr.toml`, in the order of their names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::peer::RawPeer;
use super::problem::{ConfigError, Problems};
use super::reader::{Lines, Table, document};
use stream_router::p2p::regular_file;

const EXTENSION: &str = "toml";

/// A file that has nothing but `[[peer]]` sections, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    path: PathBuf,
    text: String,
}

impl DropIn {
    /// Makes one of its text; `path` only names it in problems.
    pub fn new(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    /// Returns the directory of the drop-ins of a main file.
    pub fn directory(main: &Path) -> PathBuf {
        if main.extension().is_some_and(|end| end == EXTENSION) {
            return main.with_extension("d");
        }
        let mut name = main.as_os_str().to_owned();
        name.push(".d");
        name.into()
    }

    /// Reads those of a main file, in the order of their names. What has another ending than `.toml`, or is hidden, is none.
    ///
    /// # Errors
    /// The directory, or one of them, is there and cannot be read.
    pub fn all_of(main: &Path) -> Result<Vec<Self>, ConfigError> {
        let directory = Self::directory(main);
        let read = |path: &Path, source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(&directory, error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| read(&directory, error))?.path();
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && path.extension().is_some_and(|end| end == EXTENSION) {
                paths.push(path);
            }
        }
        paths.sort();
        let all = paths.into_iter().map(|path| {
            let text = regular_file::read_to_string(&path).map_err(|error| read(&path, error))?;
            Ok(Self { path, text })
        });
        all.collect()
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what it holds.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn peers(&self, problems: &mut Problems) -> Vec<RawPeer> {
        let lines = Lines::new(self.path.as_path().into(), &self.text);
        let Some(document) = document(&self.text, &lines, problems) else {
            return Vec::new();
        };
        let mut root = Table::root(document.get_ref(), &lines);
        let sections = root.tables("peer", problems);
        root.finish(problems);
        let peers = sections.into_iter();
        peers.map(|section| RawPeer::read(section, problems)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::IDS;
    use xtask::lab::ScratchDir;

    fn section(n: usize, more: &str) -> String {
        format!(
            "[[peer]]\nid = '{}'\nallowed_ips = ['10.43.{n}.0/24']\n{more}",
            IDS[n]
        )
    }

    /// A directory with a main file that has the first peer, and drop-ins.
    fn scratch(drop_ins: &[(&str, String)]) -> (ScratchDir, PathBuf) {
        let directory = ScratchDir::unique("drop-in").unwrap();
        let main = directory.path().join("sr.toml");
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n{}", section(0, ""));
        fs::write(&main, text).unwrap();
        let beside = directory.path().join("sr.d");
        fs::create_dir(&beside).unwrap();
        for (name, text) in drop_ins {
            fs::write(beside.join(name), text).unwrap();
        }
        (directory, main)
    }

    #[test]
    fn a_file_has_its_directory_beside_it() {
        for (file, directory) in [
            ("/etc/stream-router.toml", "/etc/stream-router.d"),
            ("/etc/stream-router/office.toml", "/etc/stream-router/office.d"),
            ("sr.conf", "sr.conf.d"),
        ] {
            assert_eq!(DropIn::directory(Path::new(file)), Path::new(directory));
        }
    }

    #[test]
    fn peers_follow_those_of_the_main_file_in_the_order_of_the_names() {
        let (_directory, main) = scratch(&[
            ("b.toml", section(1, "")),
            ("a.toml", section(2, "")),
            (".hidden.toml", "wrong".to_owned()),
            ("readme", "wrong".to_owned()),
        ]);

        let config = Config::load(&main).unwrap();

        let ids: Vec<_> = config.peers().iter().map(|peer| peer.id().to_string()).collect();
        assert_eq!(ids, [IDS[0], IDS[2], IDS[1]]);
        assert_eq!(Config::load_regular(&main).unwrap(), config);
    }

    #[test]
    fn every_problem_has_the_file_that_it_is_in() {
        let (directory, main) = scratch(&[
            ("a.toml", section(0, "rate = 1\n")),
            ("b.toml", "[node]\nname = 'n'\n".to_owned()),
            ("c.toml", "[[peer]\n".to_owned()),
        ]);

        let error = Config::load(&main).unwrap_err();

        let beside = directory.path().join("sr.d");
        let places: Vec<_> = error
            .problems()
            .iter()
            .map(|problem| {
                let file = problem.file().strip_prefix(&beside).unwrap();
                (file.to_str().unwrap(), problem.line(), problem.field())
            })
            .collect();
        assert_eq!(
            places,
            [
                ("a.toml", 2, "peer[0].id"),
                ("a.toml", 3, "peer[0].allowed_ips[0]"),
                ("a.toml", 4, "peer[0].rate"),
                ("b.toml", 1, "node"),
                ("c.toml", 1, "syntax"),
            ]
        );
        let [id, network, ..] = error.problems() else {
            panic!("five problems");
        };
        let earlier = format!("peer[0].id ({}:4)", main.display());
        assert!(id.wrong().ends_with(&earlier), "{id}");
        assert!(network.wrong().contains("sr.toml:5"), "{network}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_directory_is_none() {
        let (directory, main) = scratch(&[]);
        let beside = directory.path().join("sr.d");
        symlink("nowhere", beside.join("a.toml")).unwrap();
        let error = Config::load(&main).unwrap_err();
        assert!(error.to_string().contains("sr.d/a.toml"), "{error}");

        fs::remove_dir_all(&beside).unwrap();
        assert_eq!(Config::load(&main).unwrap().peers().len(), 1);
        fs::write(&beside, "").unwrap();
        let error = Config::load(&main).unwrap_err();
        assert!(error.to_string().ends_with("sr.d"), "{error}");
    }

    #[test]
    fn a_peer_that_is_not_enabled_is_no_peer_but_keeps_its_id_and_name() {
        let off = "enabled = false\ncomment = 'at the workshop'\nname = 'rome'\n";
        let (_directory, main) = scratch(&[("a.toml", section(1, off))]);
        let config = Config::load(&main).unwrap();
        let [asleep] = config.disabled() else {
            panic!("one peer is not enabled");
        };
        assert_eq!(config.peers().len(), 1);
        assert_eq!(
            (asleep.name(), asleep.comment()),
            (Some("rome"), Some("at the workshop"))
        );

        // Its network may be another's meanwhile; its name may not.
        let (_directory, main) = scratch(&[
            ("a.toml", section(1, off)),
            ("b.toml", section(2, "name = 'Rome'\n").replace("43.2", "43.1")),
            ("c.toml", section(1, "").replace("43.1", "44.0")),
        ]);
        let error = Config::load(&main).unwrap_err();
        let fields: Vec<_> = error
            .problems()
            .iter()
            .map(|problem| {
                (
                    problem.file().file_name().unwrap().to_str().unwrap(),
                    problem.field(),
                )
            })
            .collect();
        assert_eq!(fields, [("b.toml", "peer[0].name"), ("c.toml", "peer[0].id")]);
    }

    #[test]
    fn a_comment_is_one_line() {
        for (comment, fits) in [("'at the workshop'", true), ("\"two\\nlines\"", false)] {
            let (_directory, main) = scratch(&[("a.toml", section(1, &format!("comment = {comment}\n")))]);
            assert_eq!(Config::load(&main).is_ok(), fits, "{comment}");
        }
    }
}
