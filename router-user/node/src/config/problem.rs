//! What is wrong with a configuration file, place by place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file, or the directory of those beside it, cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What reading it gave.
        source: std::io::Error,
    },
    /// It was read and is wrong in at least one place; one line per problem.
    #[error("{}", lines(problems))]
    Invalid {
        /// Every problem found, in the order of the files and in that of each.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Returns every problem with the content of the file; empty when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems } => problems,
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One thing wrong in a configuration file.
///
/// Prints as `FILE:LINE: FIELD: what is wrong (allowed: what is allowed)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: PathBuf,
    line: usize,
    field: String,
    wrong: String,
    allowed: String,
}

impl Problem {
    /// Returns the file as it was named by the caller.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the line in the file, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the path of the field, such as `peer[1].allowed_ips[0]`; `syntax` when the file is not TOML.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns what is wrong with it.
    pub fn wrong(&self) -> &str {
        &self.wrong
    }

    /// Returns what is allowed in its place.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            field,
            wrong,
            allowed,
        } = self;
        write!(
            f,
            "{}:{line}: {field}: {wrong} (allowed: {allowed})",
            file.display()
        )
    }
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
    pub(super) field: String,
}

impl Place {
    /// Returns a field of the table at this place, on `line`.
    pub(super) fn field(&self, name: &str, line: usize) -> Self {
        let field = if self.field.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.field)
        };
        let file = Arc::clone(&self.file);
        Self { file, line, field }
    }

    /// Returns an element of the array at this place, on `line`.
    pub(super) fn element(&self, index: usize, line: usize) -> Self {
        Self {
            file: Arc::clone(&self.file),
            line,
            field: format!("{}[{index}]", self.field),
        }
    }

    /// Returns the field and its line, with the file unless the place `from` which it is named is in the same.
    pub(super) fn seen_from(&self, from: &Self) -> String {
        let Self { file, line, field } = self;
        match *file == from.file {
            true => format!("{field} (line {line})"),
            false => format!("{field} ({}:{line})", file.display()),
        }
    }
}

/// A value and where it stands, for the checks that compare values.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

/// Collects problems while files are read.
pub(super) struct Problems {
    /// The one whose problems come first.
    file: Arc<Path>,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: Arc<Path>) -> Self {
        Self {
            file,
            found: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, place: &Place, wrong: impl Into<String>, allowed: impl Into<String>) {
        self.found.push(Problem {
            file: place.file.to_path_buf(),
            line: place.line,
            field: place.field.clone(),
            wrong: wrong.into(),
            allowed: allowed.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns every problem, those of the main file first, then file by file, in the order of each.
    pub(super) fn into_error(mut self) -> ConfigError {
        let main = &self.file;
        self.found
            .sort_by_cached_key(|problem| (*problem.file != **main, problem.file.clone(), problem.line));
        ConfigError::Invalid { problems: self.found }
    }
}
