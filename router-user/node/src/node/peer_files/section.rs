//! A `[[peer]]` section in the text of a file, whose other lines and comments stay as they are.

use libp2p::PeerId;
use toml_edit::{ArrayOfTables, DocumentMut, TomlError, value};

use super::fields::PeerFields;

/// One of the sections of a document.
pub(super) struct Section {
    document: DocumentMut,
    index: usize,
}

/// Returns the text of a file with a new peer.
pub(super) fn new_section(id: PeerId, fields: &PeerFields) -> String {
    let mut table = toml_edit::Table::new();
    table.insert("id", value(id.to_string()));
    fields.put(&mut table);
    let mut sections = ArrayOfTables::new();
    sections.push(table);
    let mut document = DocumentMut::new();
    document.insert("peer", toml_edit::Item::ArrayOfTables(sections));
    document.to_string()
}

impl Section {
    /// Changes the section with this index in a text.
    pub(super) fn change(
        text: &str,
        index: usize,
        change: impl FnOnce(&mut Self),
    ) -> Result<Self, TomlError> {
        let document = text.parse()?;
        let mut section = Self { document, index };
        change(&mut section);
        Ok(section)
    }

    /// Sets what is said.
    pub(super) fn set(&mut self, fields: &PeerFields) {
        let index = self.index;
        if let Some(table) = self.sections().and_then(|sections| sections.get_mut(index)) {
            fields.put(table);
        }
    }

    /// Takes the section out.
    pub(super) fn remove(&mut self) {
        let index = self.index;
        if let Some(sections) = self.sections() {
            sections.remove(index);
            if sections.is_empty() {
                self.document.remove("peer");
            }
        }
    }

    /// Returns the text of the file.
    pub(super) fn text(&self) -> String {
        self.document.to_string()
    }

    /// Returns whether no section is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.document.is_empty()
    }

    fn sections(&mut self) -> Option<&mut ArrayOfTables> {
        self.document.get_mut("peer")?.as_array_of_tables_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    const TEXT: &str = "# mine\n[device]\naddresses = [\"10.42.0.1/24\"] # here\n\n# the first\n[[peer]]\nname = \"rome\"\n\
                        rate = 9000\n\n# the second\n[[peer]]\nname = \"oslo\"\n";

    fn fields(words: &[&str]) -> PeerFields {
        let command = PeerFields::augment_args(clap::Command::new("set"));
        let matches = command.try_get_matches_from(std::iter::once(&"set").chain(words));
        PeerFields::from_arg_matches(&matches.unwrap()).unwrap()
    }

    #[test]
    fn a_field_is_set_or_taken_away_and_the_rest_stays() {
        let fields = fields(&[
            "--rate",
            "0",
            "--as",
            "roma",
            "--addresses",
            "/a,/b",
            "--enabled",
            "false",
        ]);

        let changed = Section::change(TEXT, 0, |section| section.set(&fields)).unwrap();

        assert_eq!(
            changed.text(),
            TEXT.replace(
                "name = \"rome\"\nrate = 9000\n",
                "name = \"roma\"\naddresses = [\"/a\", \"/b\"]\nenabled = false\n"
            )
        );
    }

    #[test]
    fn a_section_goes_and_the_others_stay() {
        let mut changed = Section::change(TEXT, 0, Section::remove).unwrap();
        let text = changed.text();
        assert!(
            text.starts_with("# mine\n[device]\naddresses = [\"10.42.0.1/24\"] # here\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n# the second\n[[peer]]\nname = \"oslo\"\n"),
            "{text}"
        );
        assert!(!text.contains("rome") && !changed.is_empty(), "{text}");
        changed.index = 0;
        changed.remove();
        assert!(!changed.text().contains("peer"), "{}", changed.text());
        assert!(
            Section::change("[[peer]]\nname = 'a'\n", 0, Section::remove)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_new_file_has_what_is_said() {
        let id = PeerId::random();
        let fields = fields(&[
            "--allowed-ips",
            "10.42.0.2/32,fd42::2/128",
            "--comment",
            "a \"b\"",
        ]);

        assert_eq!(
            new_section(id, &fields),
            format!(
                "[[peer]]\nid = \"{id}\"\nallowed_ips = [\"10.42.0.2/32\", \"fd42::2/128\"]\ncomment = 'a \"b\"'\n"
            )
        );
        assert!(PeerFields::default().is_empty() && !fields.is_empty());
    }
}
