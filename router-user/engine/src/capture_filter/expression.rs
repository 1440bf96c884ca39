//! The tree of a filter expression.

use super::primitive::{FilterInput, Primitive};

/// A primitive, or expressions joined by `not`, `and` or `or`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression<P> {
    Primitive(Primitive<P>),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl<P> Expression<P> {
    /// Returns the same expression with each peer replaced by what `find` returns for it.
    // Recurses as deep as the expression, so at most MAX_FILTER_DEPTH levels and what joins them.
    pub(super) fn resolve<Q, E>(
        &self,
        find: &mut impl FnMut(&P) -> Result<Q, E>,
    ) -> Result<Expression<Q>, E> {
        let mut all = |inner: &[Self]| {
            inner
                .iter()
                .map(|inner| inner.resolve(find))
                .collect::<Result<_, E>>()
        };
        Ok(match self {
            Self::Primitive(primitive) => Expression::Primitive(primitive.resolve(find)?),
            Self::Not(inner) => Expression::Not(Box::new(inner.resolve(find)?)),
            Self::All(inner) => Expression::All(all(inner)?),
            Self::Any(inner) => Expression::Any(all(inner)?),
        })
    }
}

impl<P: PartialEq> Expression<P> {
    /// Says whether the packet matches.
    pub(super) fn matches(&self, packet: &FilterInput<'_, P>) -> bool {
        match self {
            Self::Primitive(primitive) => primitive.matches(packet),
            Self::Not(inner) => !inner.matches(packet),
            Self::All(inner) => inner.iter().all(|inner| inner.matches(packet)),
            Self::Any(inner) => inner.iter().any(|inner| inner.matches(packet)),
        }
    }
}
