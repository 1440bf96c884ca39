//! Throughput of the last minutes.

use std::collections::VecDeque;
use std::time::Duration;

/// Most points kept; at the shortest interval these are 10 minutes.
const MAX_POINTS: usize = 1200;

/// Least time that a graph shows.
const SHOWN: Duration = Duration::from_secs(120);

/// Throughput between two answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ThroughputPoint {
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) tx_bits_per_second: f64,
    pub(super) rx_bits_per_second: f64,
}

/// The points of the last minutes, oldest first.
#[derive(Debug, Default)]
pub(super) struct ThroughputHistory {
    points: VecDeque<ThroughputPoint>,
}

impl ThroughputHistory {
    /// Adds the newest point.
    pub(super) fn push(&mut self, point: ThroughputPoint) {
        if self.points.len() == MAX_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Returns the newest point.
    pub(super) fn latest(&self) -> Option<&ThroughputPoint> {
        self.points.back()
    }

    /// Returns the means of `of` in `n` stretches of time, the last of which holds `now`; `None` where nothing is
    /// known.
    pub(super) fn columns(
        &self,
        n: usize,
        now: Duration,
        of: impl Fn(&ThroughputPoint) -> f64,
    ) -> Vec<Option<f64>> {
        let width = column_width(n).as_secs_f64();
        // Stretches begin at multiples of their width, so that they do not flicker.
        let end = (now.as_secs_f64() / width).floor() + 1.0;
        let first = end - n as f64;
        let mut sums = vec![(0.0, 0.0); n];
        for point in &self.points {
            let (from, to) = (point.from.as_secs_f64() / width, point.to.as_secs_f64() / width);
            // A cast of what is below 0 gives 0.
            let begin = (from - first).floor() as usize;
            for (column, (weighted, weight)) in sums.iter_mut().enumerate().skip(begin) {
                let start = first + column as f64;
                let shared = to.min(start + 1.0) - from.max(start);
                if start >= to {
                    break;
                }
                if shared > 0.0 {
                    *weighted += of(point) * shared;
                    *weight += shared;
                }
            }
        }
        sums.into_iter()
            .map(|(weighted, weight)| (weight > 0.0).then(|| weighted / weight))
            .collect()
    }
}

/// Returns the time that one of `n` columns stands for.
pub(super) fn column_width(n: usize) -> Duration {
    let seconds = SHOWN.as_secs().div_ceil(n.max(1) as u64);
    Duration::from_secs(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    fn point(from: f64, to: f64, tx: f64) -> ThroughputPoint {
        ThroughputPoint {
            from: seconds(from),
            to: seconds(to),
            tx_bits_per_second: tx,
            rx_bits_per_second: 0.0,
        }
    }

    fn tx(history: &ThroughputHistory, n: usize, now: f64) -> Vec<Option<f64>> {
        history.columns(n, seconds(now), |point| point.tx_bits_per_second)
    }

    #[test]
    fn a_column_is_the_mean_over_its_time() {
        let mut history = ThroughputHistory::default();
        history.push(point(0.0, 1.0, 10.0));
        history.push(point(1.0, 2.0, 20.0));
        history.push(point(2.0, 3.0, 30.0));

        // 60 columns of 2 s each.
        let columns = tx(&history, 60, 3.5);

        assert_eq!(columns.len(), 60);
        assert_eq!(columns[57..], [None, Some(15.0), Some(30.0)]);
    }

    #[test]
    fn a_time_without_answers_is_a_gap() {
        let mut history = ThroughputHistory::default();
        history.push(point(0.0, 1.0, 10.0));
        history.push(point(3.0, 4.0, 20.0));

        let columns = tx(&history, 120, 5.5);

        assert_eq!(columns[114..], [Some(10.0), None, None, Some(20.0), None, None]);
    }

    #[test]
    fn a_slow_pace_fills_every_column_it_covers() {
        let mut history = ThroughputHistory::default();
        history.push(point(0.0, 4.0, 10.0));

        assert_eq!(tx(&history, 120, 3.5)[116..], [Some(10.0); 4]);
    }

    #[test]
    fn narrow_graphs_show_as_much_time() {
        assert_eq!(column_width(120), Duration::from_secs(1));
        assert_eq!(column_width(38), Duration::from_secs(4));
        assert_eq!(column_width(500), Duration::from_secs(1));
        assert_eq!(column_width(0), Duration::from_secs(120));
        assert_eq!(tx(&ThroughputHistory::default(), 0, 1.0), []);
    }

    proptest! {
        #[test]
        fn every_column_is_between_the_least_and_the_most(
            steps in vec((0.1..8.0_f64, 0.0..1e10_f64), 1..2000),
            n in 1..200_usize,
        ) {
            let mut history = ThroughputHistory::default();
            let mut now = 0.0;
            for (step, rate) in &steps {
                history.push(point(now, now + step, *rate));
                now += step;
            }
            let least = steps.iter().map(|(_, rate)| *rate).fold(f64::MAX, f64::min);
            let most = steps.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);

            let columns = tx(&history, n, now);

            prop_assert!(history.points.len() <= MAX_POINTS);
            prop_assert_eq!(columns.len(), n);
            prop_assert!(columns.iter().flatten().count() > 0);
            for mean in columns.into_iter().flatten() {
                prop_assert!(mean >= least - 1e-3 && mean <= most + 1e-3, "{mean}");
            }
        }
    }
}
