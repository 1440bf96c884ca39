//! The tokens of a filter expression: words, parentheses and signs, with their positions.

/// A word, parenthesis or sign of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// The byte of the expression at which the token starts.
    pub(super) position: usize,
    /// The token's text, empty at the end of the expression.
    pub(super) text: &'a str,
}

impl Token<'_> {
    /// Describes the token for an error message.
    pub(super) fn shown(&self) -> String {
        if self.text.is_empty() {
            "the filter ends".to_owned()
        } else {
            format!("there is {:?}", self.text)
        }
    }
}

/// Cuts an expression into tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    /// Returns a lexer at the beginning of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// Returns the next token; at the end of the expression it is empty, at every call.
    pub(super) fn next(&mut self) -> Token<'a> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let skipped = rest.len() - rest.trim_start().len();
        let (position, rest) = (self.position + skipped, rest.trim_start());
        let len = ["(", ")", "&&", "||", "!"]
            .iter()
            .find(|sign| rest.starts_with(**sign))
            .map_or_else(|| word_len(rest), |sign| sign.len());
        self.position = position + len;
        Token {
            position,
            text: rest.get(..len).unwrap_or_default(),
        }
    }
}

fn word_len(rest: &str) -> usize {
    let end = |c: char| c.is_whitespace() || "()&|!".contains(c);
    match rest.find(end) {
        // A lone & or | is no word; it is shown as what is wrong.
        Some(0) => rest.chars().next().map_or(0, char::len_utf8),
        Some(len) => len,
        None => rest.len(),
    }
}
