//! The token by which clients may change something, and its file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::private_file::{self, PrivateFileError};

/// Fewest characters of a token: what can be guessed is none.
const MIN_LEN: usize = 16;

/// Most characters of a token, with all of a header's other bytes well below what a head may have.
const MAX_LEN: usize = 512;

/// Why a token cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read, or others can use it.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file holds something else.
    #[error(
        "{} holds no token: one line of {MIN_LEN} to {MAX_LEN} letters, digits and -._~+/=; make one with \
         `openssl rand -hex 32`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The sum of a token. The token itself is not kept.
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token of a file that its owner alone may use.
    ///
    /// # Errors
    /// The file cannot be read, others can use it, or it holds something else.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        // With the end of the line.
        let text = private_file::read(path, MAX_LEN + 1)?;
        let token = text.strip_suffix(b"\n").unwrap_or(&text);
        let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if !(MIN_LEN..=MAX_LEN).contains(&token.len()) || !token.iter().all(is_known) {
            let path = path.to_owned();
            return Err(TokenError::Malformed { path });
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Returns whether a client has it. How long that takes says nothing of the token.
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&presented).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use xtask::lab::ScratchDir;

    fn load(text: &str, mode: u32) -> Result<Token, TokenError> {
        let directory = ScratchDir::unique("token").unwrap();
        let path = directory.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Token::load(&path)
    }

    #[test]
    fn a_token_is_one_line_of_a_private_file() {
        let token = load("0123456789abcdef\n", 0o600).unwrap();

        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdeF"] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
        assert!(load(&"x".repeat(MAX_LEN), 0o400).is_ok());
    }

    #[test]
    fn what_others_can_read_or_is_no_token_is_refused() {
        let exposed = load("0123456789abcdef\n", 0o640).unwrap_err();
        assert!(matches!(exposed, TokenError::File(_)), "{exposed}");
        let long = "x".repeat(MAX_LEN + 1);
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef\n\n",
            "0123456789 abcdef",
            "0123456789abcd\u{e9}",
            &long,
        ] {
            let refused = load(text, 0o600).unwrap_err();
            assert!(
                matches!(refused, TokenError::Malformed { .. }),
                "{text:?} {refused}"
            );
        }
    }
}
