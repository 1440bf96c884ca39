//! What may stand at the end of a command line.

/// A candidate, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) text: String,
    pub(super) meaning: String,
}

impl Candidate {
    /// Makes a candidate; it is one line.
    pub(super) fn new(text: &str, meaning: Option<String>) -> Self {
        let meaning = meaning.unwrap_or_default();
        let meaning = meaning.lines().next().unwrap_or_default();
        Self {
            text: text.to_owned(),
            meaning: meaning.to_owned(),
        }
    }
}
