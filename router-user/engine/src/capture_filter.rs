//! The filter of a capture: a small expression, read once and evaluated for each packet.
//!
//! ```text
//! expression := all-of, alternatives, or one of them alone
//! all-of     := unary "and" unary ...            alternatives := unary "or" unary ...
//! unary      := "not" unary | "(" expression ")" | primitive
//! primitive  := ["src" | "dst"] ("host" ADDRESS | "net" PREFIX | "port" N | "portrange" A-B)
//!             | ["src" | "dst"] ADDRESS | PROTOCOL ["src" | "dst"] ("port" N | "portrange" A-B)
//!             | PROTOCOL | "proto" PROTOCOL-OR-NUMBER | "ip" | "ip6" | "peer" ID | "less" N | "greater" N
//! ```
//!
//! `and` and `or` do not stand side by side without parentheses: tools disagree on which of them comes first.

mod error;
mod expression;
mod lexer;
mod parser;
mod primitive;
#[cfg(test)]
mod tests;

pub use error::FilterError;
pub use parser::MAX_FILTER_DEPTH;
pub use primitive::FilterInput;

use expression::Expression;
use parser::Parser;

/// Longest expression in bytes.
pub const MAX_FILTER_BYTES: usize = 1024;

/// A capture's expression. `P` tells peers apart: it is the text that names a peer, or the peer which that text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFilter<P = String>(Expression<P>);

impl CaptureFilter {
    /// Reads an expression. Returns `None` for an empty one, which every packet matches.
    ///
    /// # Errors
    /// Returns what is wrong in the expression, and where.
    pub fn parse(text: &str) -> Result<Option<Self>, FilterError> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(FilterError {
                position: MAX_FILTER_BYTES,
                wrong: format!("it has {} bytes, and {MAX_FILTER_BYTES} are allowed", text.len()),
            });
        }
        Ok(Parser::new(text)?.parse()?.map(Self))
    }
}

impl<P> CaptureFilter<P> {
    /// Returns the same expression with each peer replaced by what `find` returns for it.
    ///
    /// # Errors
    /// Returns the first error of `find`.
    pub fn resolve<Q, E>(&self, mut find: impl FnMut(&P) -> Result<Q, E>) -> Result<CaptureFilter<Q>, E> {
        self.0.resolve(&mut find).map(CaptureFilter)
    }
}

impl<P: PartialEq> CaptureFilter<P> {
    /// Says whether the packet matches the expression.
    pub fn matches(&self, packet: &FilterInput<'_, P>) -> bool {
        self.0.matches(packet)
    }
}
