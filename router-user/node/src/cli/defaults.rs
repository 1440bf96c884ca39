//! The configuration that commands go by where there is no file.

use std::path::Path;

use crate::config::{Config, ConfigError};

/// A node of which nothing is said: the defaults, and an address because one is required.
pub(super) const DEFAULTS: &str = "[device]\naddresses = [\"10.42.0.1/24\"]\n";

/// Returns the configuration of a node of which nothing is said.
pub(super) fn defaults() -> Result<Config, ConfigError> {
    Config::parse(DEFAULTS, Path::new("the defaults"))
}
