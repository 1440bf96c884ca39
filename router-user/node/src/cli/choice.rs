//! Values of which there are a few, which help and completion list.

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Returns a parser of `all`, by their names.
pub(super) fn one_of<T, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).try_map(move |text| {
        let mut all = all.into_iter();
        all.find(|one| name(*one) == text).ok_or("no such value")
    })
}
