//! The `[exit]` section.

use super::problem::Problems;
use super::reader::Table;

/// What the node does for peers whose way to everywhere leads through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitSection {
    serve: bool,
}

impl ExitSection {
    /// Returns whether packets of peers leave to other networks with this host's address.
    pub fn serve(&self) -> bool {
        self.serve
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let serve = table.boolean("serve", problems).unwrap_or(false);
        table.finish(problems);
        Self { serve }
    }
}
