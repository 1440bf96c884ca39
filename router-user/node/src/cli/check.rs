//! `stream-router check`

use std::path::Path;

use super::outcome::{Outcome, print};
use crate::config::Config;

/// Validates a configuration.
pub(super) fn check(file: &Path) -> Outcome {
    let config = Config::load(file)?;
    print(format_args!(
        "{}: valid, {} peers",
        file.display(),
        config.peers().len()
    ))
}
