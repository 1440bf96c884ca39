//! An error and its sources as one line of text.

use std::error::Error;

/// Returns the text of an error and of its sources, without the sources that the text before them contains already.
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
