//! The password of the proxy, where a file of its own has it.

use std::path::{Path, PathBuf};

use crate::config::TransportSection;
use crate::private_file::{self, PrivateFileError};
use stream_router::p2p::{MAX_PROXY_PASSWORD, TcpConfig};

/// Why the password cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProxyPasswordError {
    /// The file cannot be read, or others can use it.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file holds something else.
    #[error("{} holds no password: one line of 1 to {MAX_PROXY_PASSWORD} bytes of text", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Returns how TCP connections are made, with the password of the proxy.
///
/// # Errors
/// There is a file of the password, and it cannot be had.
pub(super) fn tcp_config(transport: &TransportSection) -> Result<TcpConfig, ProxyPasswordError> {
    let mut tcp = transport.tcp().clone();
    if let (Some(proxy), Some(path)) = (&mut tcp.proxy, transport.proxy_password_file()) {
        let password = load(path)?;
        let taken = proxy.set_password(&password);
        taken.map_err(|_wrong| malformed(path))?;
    }
    Ok(tcp)
}

/// Reads the password of a file that its owner alone may use.
///
/// # Errors
/// The file cannot be read, others can use it, or it holds something else.
pub(super) fn load(path: &Path) -> Result<String, ProxyPasswordError> {
    // With the end of the line.
    let bytes = private_file::read(path, MAX_PROXY_PASSWORD + 1)?;
    let text = String::from_utf8(bytes).map_err(|_no_text| malformed(path))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let is_password = (1..=MAX_PROXY_PASSWORD).contains(&password.len()) && !password.contains('\n');
    is_password
        .then(|| password.to_owned())
        .ok_or_else(|| malformed(path))
}

fn malformed(path: &Path) -> ProxyPasswordError {
    ProxyPasswordError::Malformed {
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Config;
    use xtask::lab::ScratchDir;

    fn tcp(text: &[u8], mode: u32) -> Result<TcpConfig, ProxyPasswordError> {
        let directory = ScratchDir::unique("proxy-password").unwrap();
        let path = directory.path().join("password");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[transport]\nproxy = 'http://node@192.0.2.8:3128'\n\
             proxy_password_file = {path:?}\n"
        );
        tcp_config(Config::parse(&text, Path::new("sr.toml")).unwrap().transport())
    }

    #[test]
    fn the_line_of_a_private_file_is_the_password_and_is_not_shown() {
        let whole = "http://node:p%40ss%20word@192.0.2.8:3128";
        let expected = stream_router::p2p::ProxyConfig::new(whole, Vec::new()).unwrap();
        for text in ["p@ss word\n", "p@ss word"] {
            let proxy = tcp(text.as_bytes(), 0o600).unwrap().proxy.unwrap();
            assert_eq!(proxy, expected);
            assert!(!format!("{proxy:?} {proxy}").contains("p@ss"), "{proxy:?}");
        }
    }

    #[test]
    fn what_others_can_read_or_is_no_password_is_refused() {
        let exposed = tcp(b"secret\n", 0o640).unwrap_err();
        assert!(exposed.to_string().contains("chmod 600"), "{exposed}");
        let long = "x".repeat(MAX_PROXY_PASSWORD + 1);
        for text in [&b""[..], b"\n", b"a\nb\n", b"\xff\n", long.as_bytes()] {
            let error = tcp(text, 0o600).unwrap_err();
            assert!(matches!(error, ProxyPasswordError::Malformed { .. }), "{error}");
        }
        assert!(tcp(&long.as_bytes()[1..], 0o600).is_ok());
    }
}
