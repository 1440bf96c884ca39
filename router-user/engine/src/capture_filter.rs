//! Which packets a capture shows: a small expression, read once and evaluated for each packet.
//!
//! ```text
//! expression := all-of, alternatives, or one of them alone
//! all-of     := unary "and" unary ...            alternatives := unary "or" unary ...
//! unary      := "not" unary | "(" expression ")" | test
//! test       := ["src" | "dst"] ("host" ADDRESS | "net" PREFIX | "port" N | "portrange" A-B)
//!             | ["src" | "dst"] ADDRESS | PROTOCOL ["src" | "dst"] ("port" N | "portrange" A-B)
//!             | PROTOCOL | "proto" PROTOCOL-OR-NUMBER | "ip" | "ip6" | "peer" ID | "less" N | "greater" N
//! ```
//!
//! `and` and `or` do not stand side by side without parentheses: tools disagree on which of them comes first.

mod lexer;
mod parser;
mod test;
#[cfg(test)]
mod tests;

use std::fmt;

use router_common::packet::Parsed;

use parser::Parser;
use test::Test;

/// Longest expression in bytes.
pub const MAX_FILTER_BYTES: usize = 1024;

/// Most parentheses and `not`s around a test.
pub const MAX_FILTER_DEPTH: usize = 32;

/// An expression. `P` tells peers apart: the text that the expression names them with, or what they were found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFilter<P = String>(Expression<P>);

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    /// Byte of the expression, from 0.
    pub position: usize,
    /// What stands there, and what may.
    pub wrong: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the filter is wrong at character {}: {}",
            self.position + 1,
            self.wrong
        )
    }
}

/// A packet as an expression sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a, P> {
    /// What the parser says of it.
    pub parsed: &'a Parsed,
    /// Its length in bytes.
    pub len: usize,
    /// The peer it goes to or comes from, if it has one.
    pub peer: Option<&'a P>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression<P> {
    Test(Test<P>),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl CaptureFilter {
    /// Reads an expression; `None` for one that is empty, which every packet matches.
    ///
    /// # Errors
    /// What is wrong, and where.
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
    /// The same expression with what `find` says its peers are.
    ///
    /// # Errors
    /// The first that `find` gives.
    pub fn resolve<Q, E>(&self, mut find: impl FnMut(&P) -> Result<Q, E>) -> Result<CaptureFilter<Q>, E> {
        self.0.resolve(&mut find).map(CaptureFilter)
    }
}

impl<P: PartialEq> CaptureFilter<P> {
    /// Whether the packet is one of those asked for.
    pub fn matches(&self, packet: &Candidate<'_, P>) -> bool {
        self.0.matches(packet)
    }
}

impl<P> Expression<P> {
    // As deep as the expression, so at most MAX_FILTER_DEPTH and what joins its levels.
    fn resolve<Q, E>(&self, find: &mut impl FnMut(&P) -> Result<Q, E>) -> Result<Expression<Q>, E> {
        let mut all = |inner: &[Self]| {
            inner
                .iter()
                .map(|inner| inner.resolve(find))
                .collect::<Result<_, E>>()
        };
        Ok(match self {
            Self::Test(test) => Expression::Test(test.resolve(find)?),
            Self::Not(inner) => Expression::Not(Box::new(inner.resolve(find)?)),
            Self::All(inner) => Expression::All(all(inner)?),
            Self::Any(inner) => Expression::Any(all(inner)?),
        })
    }
}

impl<P: PartialEq> Expression<P> {
    fn matches(&self, packet: &Candidate<'_, P>) -> bool {
        match self {
            Self::Test(test) => test.matches(packet),
            Self::Not(inner) => !inner.matches(packet),
            Self::All(inner) => inner.iter().all(|inner| inner.matches(packet)),
            Self::Any(inner) => inner.iter().any(|inner| inner.matches(packet)),
        }
    }
}
