//! Names of nodes, which people use instead of ids.

use std::net::IpAddr;

use libp2p::PeerId;

use super::problem::{Located, Problems};
use super::reader::Table;

/// Longest name, as that of a host.
pub(super) const MAX_NAME_LEN: usize = 63;

/// What a name looks like.
pub(super) const NAME_ALLOWED: &str = "1 to 63 letters, digits, \"-\" and \".\", the first and the last a letter or digit; no address and no peer id";

/// Checks a name, which is to be told from everything else that a peer is called by.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if text.len() > MAX_NAME_LEN
        || !text.chars().all(is_inner)
        || !is_end(text.chars().next())
        || !is_end(text.chars().next_back())
    {
        return Err(format!("{text:?} is no name"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("{text} is an address"));
    }
    if text.parse::<PeerId>().is_ok() {
        return Err(format!("{text} is a peer id"));
    }
    Ok(())
}

/// Parses a name given at the command line.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    match check_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(wrong) => Err(format!("{wrong} (allowed: {NAME_ALLOWED})")),
    }
}

/// Reads the name in a table, if it has one.
pub(super) fn read_name(table: &mut Table<'_>, problems: &mut Problems) -> Option<Located<String>> {
    let name = table.string("name", NAME_ALLOWED, problems)?;
    match check_name(&name.value) {
        Ok(()) => Some(name),
        Err(wrong) => {
            problems.add(&name.place, wrong, NAME_ALLOWED);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_that_is_nothing_else() {
        for name in [
            "a",
            "berlin",
            "Berlin-2.example.org",
            "7",
            "10.42",
            &"x".repeat(63),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for no_name in [
            "",
            "-a",
            "a-",
            ".a",
            "a.",
            "a b",
            "a_b",
            "zürich",
            "a\n",
            &"x".repeat(64),
            "10.42.0.2",
            "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
        ] {
            assert!(check_name(no_name).is_err(), "{no_name}");
        }
    }
}
