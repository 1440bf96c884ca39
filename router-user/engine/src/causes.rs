//! An error as one line.

use std::error::Error;

/// An error with what caused it, leaving out what it says itself already.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn sources_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot dial")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("no route"));
        assert_eq!(with_sources(&error), "cannot dial: no route");
        assert_eq!(with_sources(&io::Error::other(error)), "cannot dial: no route");
    }
}
