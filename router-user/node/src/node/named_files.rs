//! The files with secrets and certificates that a configuration names, tried as a start reads them.

use std::error::Error;
use std::path::PathBuf;

use super::{export, observability, proxy_password};
use crate::config::Config;

/// A file that a start reads, and what would come of it.
pub(crate) struct NamedFile {
    /// The field that names it.
    pub(crate) field: &'static str,
    pub(crate) path: PathBuf,
    /// Whether nobody but the node may read it.
    pub(crate) is_secret: bool,
    pub(crate) outcome: Result<(), Box<dyn Error + Send + Sync>>,
}

impl NamedFile {
    /// Reads each file of `config`.
    pub(crate) fn all_of(config: &Config) -> Vec<Self> {
        let token = config.metrics().token_file().map(|path| Self {
            field: "metrics.token_file",
            path: path.to_owned(),
            is_secret: true,
            outcome: observability::token(config).map(drop).map_err(Into::into),
        });
        let password = config.transport().proxy_password_file().map(|path| Self {
            field: "transport.proxy_password_file",
            path: path.to_owned(),
            is_secret: true,
            outcome: proxy_password::load(path).map(drop).map_err(Into::into),
        });
        let headers = export::headers(config).map(|(path, outcome)| Self {
            field: "otlp.headers_file",
            path: path.to_owned(),
            is_secret: true,
            outcome,
        });
        let authorities = export::authorities(config).map(|(path, outcome)| Self {
            field: "otlp.ca_file",
            path: path.to_owned(),
            is_secret: false,
            outcome,
        });
        let secrets = token.into_iter().chain(password).chain(headers);
        secrets.chain(authorities).collect()
    }
}
