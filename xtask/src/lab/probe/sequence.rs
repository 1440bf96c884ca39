//! Whether numbered packets of one flow arrive once each, and in order.

/// What a receiver saw of one flow, whose packets are numbered from 0.
#[derive(Clone, Debug, Default)]
pub struct SequenceCheck {
    /// One bit per number.
    seen: Vec<u64>,
    highest: Option<u32>,
    /// Numbers that arrived.
    pub n_distinct: u64,
    /// Packets whose number had arrived before.
    pub n_duplicated: u64,
    /// First arrivals after a higher number.
    pub n_reordered: u64,
}

impl SequenceCheck {
    /// Takes note of an arrival.
    pub fn handle_arrival(&mut self, number: u32) {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.n_duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.n_distinct += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.n_reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(arrivals: &[u32]) -> (u64, u64, u64) {
        let mut check = SequenceCheck::default();
        arrivals.iter().for_each(|number| check.handle_arrival(*number));
        (check.n_distinct, check.n_reordered, check.n_duplicated)
    }

    #[test]
    fn order_gaps_swaps_and_repeats_are_told_apart() {
        assert_eq!(check(&[0, 1, 2, 3]), (4, 0, 0));
        assert_eq!(check(&[0, 2, 5]), (3, 0, 0));
        assert_eq!(check(&[0, 2, 1, 3]), (4, 1, 0));
        assert_eq!(check(&[0, 1, 1, 0, 2]), (3, 0, 2));
    }

    proptest! {
        #[test]
        fn any_arrivals_are_counted_as_by_a_set(arrivals in prop::collection::vec(0..200_u32, 0..300)) {
            let mut seen = BTreeSet::new();
            let (mut n_reordered, mut n_duplicated) = (0, 0);
            for number in &arrivals {
                let overtaken = seen.range(number + 1..).next().is_some();
                match seen.insert(*number) {
                    false => n_duplicated += 1,
                    true if overtaken => n_reordered += 1,
                    true => {}
                }
            }
            prop_assert_eq!(check(&arrivals), (seen.len() as u64, n_reordered, n_duplicated));
        }
    }
}
