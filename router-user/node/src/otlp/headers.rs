//! The headers that the operator has every request carry, and their file.

use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::private_file::{self, PrivateFileError};

/// Most bytes of the file: what a collector takes of headers is less.
const MAX_BYTES: usize = 8192;

/// Names that say how the request itself is sent.
const OWN: [&str; 6] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "upgrade",
];

/// Why headers cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadersError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("{} is no text", path.display())]
    NoText { path: PathBuf },
    #[error(
        "{}:{line}: is no header: NAME: VALUE on each line, {MAX_BYTES} bytes at most in all, and not {}",
        path.display(),
        OWN.join(", ")
    )]
    Malformed { path: PathBuf, line: usize },
}

/// Reads a file that its owner alone may use: a header on each line.
///
/// # Errors
/// The file cannot be read, others can use it, or it holds something else.
pub(crate) fn load(path: &Path) -> Result<HeaderMap, HeadersError> {
    let bytes = private_file::read(path, MAX_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_no_text| HeadersError::NoText {
        path: path.to_owned(),
    })?;
    let malformed = |line| HeadersError::Malformed {
        path: path.to_owned(),
        line,
    };
    let mut headers = HeaderMap::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let (name, value) = header(line).ok_or_else(|| malformed(at + 1))?;
        headers.append(name, value);
    }
    match text.len() > MAX_BYTES {
        true => Err(malformed(text.lines().count())),
        false => Ok(headers),
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name: HeaderName = name.trim().parse().ok()?;
    let mut value: HeaderValue = value.trim().parse().ok()?;
    // It may be a secret.
    value.set_sensitive(true);
    (!OWN.contains(&name.as_str())).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use xtask::lab::ScratchDir;

    fn load_text(text: &str, mode: u32) -> Result<HeaderMap, String> {
        let directory = ScratchDir::unique("headers").unwrap();
        let path = directory.path().join("headers");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn each_line_of_a_private_file_is_a_header() {
        let headers = load_text("authorization: Bearer a:b\n\nX-Tenant:7\n", 0o600).unwrap();

        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!(headers["x-tenant"], "7");
        assert!(!format!("{headers:?}").contains("Bearer"));
    }

    #[test]
    fn what_others_can_read_or_is_no_header_is_refused() {
        assert!(load_text("a: b\n", 0o640).unwrap_err().contains("chmod 600"));
        let long = "a: b\n".repeat(2000);
        for (text, place) in [
            ("a: b\nc\n", "headers:2: is no header"),
            ("Host: x\n", "headers:1: is no header"),
            ("a b: c\n", "headers:1: is no header"),
            ("a: \u{7f}\n", "headers:1: is no header"),
            (long.as_str(), "is no header"),
        ] {
            let error = load_text(text, 0o600).unwrap_err();
            assert!(error.contains(place), "{text:?}: {error}");
        }
        assert!(
            load(Path::new("/nonexistent"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent")
        );
    }
}
