//! Where the section of a peer stands.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml_edit::{DocumentMut, Table, TomlError};

use crate::config::DropIn;
use crate::control::{Callable, LEAST_END, NotFound, find as find_called};
use stream_router::p2p::regular_file;

/// A section among its file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerPlace {
    /// In the main file.
    Main { index: usize },
    /// In the drop-in with the number `at`.
    DropIn { at: usize, index: usize },
}

/// A peer that was asked for.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) place: PeerPlace,
    /// Its name and id.
    pub(super) called: String,
}

/// Why no section is meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// A file is no TOML.
    #[error("{}: {source}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: TomlError,
    },
    /// There is none.
    #[error("no [[peer]] section in {} or beside it is of {peer:?}", file.display())]
    Nobody {
        /// What was asked for.
        peer: String,
        /// The main file.
        file: PathBuf,
    },
    /// It is too short for an end of an id.
    #[error(
        "no [[peer]] section in {} or beside it has the name {peer:?}, and an end of an id takes {LEAST_END} characters or more",
        file.display()
    )]
    Short {
        /// What was asked for.
        peer: String,
        /// The main file.
        file: PathBuf,
    },
    /// There are several.
    #[error("several ids end with {peer:?}; give more of it")]
    Several {
        /// What was asked for.
        peer: String,
    },
}

/// A section as it is written, right or wrong.
pub(crate) struct Written {
    place: PeerPlace,
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) networks: Vec<IpNet>,
    pub(crate) is_enabled: bool,
}

/// Returns the sections of a configuration and its drop-ins.
///
/// # Errors
/// A file cannot be read, or is no TOML.
pub(crate) fn written_peers(main: &Path) -> Result<Vec<Written>, Box<dyn std::error::Error>> {
    let text = regular_file::read_to_string(main)?;
    Ok(all_written(&text, &DropIn::all_of(main)?, main)?)
}

/// Finds the section of a peer in the text of the main file, and in its drop-ins.
pub(super) fn find(text: &str, drop_ins: &[DropIn], main: &Path, peer: &str) -> Result<Named, PlaceError> {
    let all = all_written(text, drop_ins, main)?;
    let found = find_called(all.iter(), peer).map_err(|why| match why {
        NotFound::Several => PlaceError::Several {
            peer: peer.to_owned(),
        },
        NotFound::Short => PlaceError::Short {
            peer: peer.to_owned(),
            file: main.to_owned(),
        },
        NotFound::Address | NotFound::Nobody => PlaceError::Nobody {
            peer: peer.to_owned(),
            file: main.to_owned(),
        },
    })?;
    Ok(Named {
        place: found.place,
        called: match &found.name {
            Some(name) => format!("{name} ({})", found.id),
            None => found.id.clone(),
        },
    })
}

fn all_written(text: &str, drop_ins: &[DropIn], main: &Path) -> Result<Vec<Written>, PlaceError> {
    let mut all = written(text, main, |index| PeerPlace::Main { index })?;
    for (at, drop_in) in drop_ins.iter().enumerate() {
        all.extend(written(drop_in.text(), drop_in.path(), |index| {
            PeerPlace::DropIn { at, index }
        })?);
    }
    Ok(all)
}

fn written(text: &str, file: &Path, place: impl Fn(usize) -> PeerPlace) -> Result<Vec<Written>, PlaceError> {
    let document: DocumentMut = text.parse().map_err(|source| PlaceError::Syntax {
        file: file.to_owned(),
        source,
    })?;
    let sections = document.get("peer").and_then(|peers| peers.as_array_of_tables());
    let sections = sections.into_iter().flatten().enumerate();
    let text = |table: &Table, name: &str| Some(table.get(name)?.as_str()?.to_owned());
    let networks = |table: &Table| {
        let listed = table.get("allowed_ips")?.as_array()?.iter();
        Some(listed.filter_map(|net| net.as_str()?.parse().ok()).collect())
    };
    let all = sections.map(|(index, table)| Written {
        place: place(index),
        id: text(table, "id").unwrap_or_default(),
        name: text(table, "name"),
        networks: networks(table).unwrap_or_default(),
        is_enabled: table.get("enabled").and_then(|enabled| enabled.as_bool()) != Some(false),
    });
    Ok(all.collect())
}

impl Callable for Written {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.networks.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_found_by_name_address_and_end_of_its_id_in_every_file() {
        let main = "[[peer]]\nid = 'aXYZW'\n[[peer]]\nid = 'bXYZW'\nname = 'rome'\n";
        let drop_in = DropIn::new(
            "d/a.toml".into(),
            "[[peer]]\nid = 'c1234'\nallowed_ips = ['10.42.0.3/32']\n".to_owned(),
        );
        let find = |peer: &str| find(main, std::slice::from_ref(&drop_in), Path::new("sr.toml"), peer);

        let second = PeerPlace::Main { index: 1 };
        let third = PeerPlace::DropIn { at: 0, index: 0 };
        for (peer, place) in [
            ("Rome", second),
            ("bXYZW", second),
            ("1234", third),
            ("10.42.0.3", third),
        ] {
            assert_eq!(find(peer).unwrap().place, place, "{peer}");
        }
        assert_eq!(find("rome").unwrap().called, "rome (bXYZW)");
        assert!(matches!(find("XYZW"), Err(PlaceError::Several { .. })));
        assert!(matches!(find("nobody"), Err(PlaceError::Nobody { .. })));
        let short = find("234").unwrap_err();
        assert!(matches!(short, PlaceError::Short { .. }));
        assert!(short.to_string().contains("4 characters or more"), "{short}");
    }
}
