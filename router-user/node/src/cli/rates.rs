//! Counts per second, and how people read them.

use std::time::Duration;

/// Returns how much a count grew per second; `None` if that is not known, because it is new or began at 0 again.
pub(super) fn per_second(before: Option<u64>, now: u64, over: Duration) -> Option<f64> {
    let grown = now.checked_sub(before?)?;
    (!over.is_zero()).then(|| grown as f64 / over.as_secs_f64())
}

/// Returns the text of bits per second, with about three digits.
pub(super) fn bit_rate(bits_per_second: f64) -> String {
    scaled(bits_per_second, ["", "k", "M", "G", "T"], " ", "bit/s")
}

/// Returns the text of a number per second, with about three digits.
pub(super) fn count_rate(per_second: f64) -> String {
    scaled(per_second, ["", "k", "M", "G", "T"], "", "/s")
}

fn scaled(value: f64, prefixes: [&str; 5], space: &str, unit: &str) -> String {
    let mut value = value.max(0.0);
    let mut prefixes = prefixes.into_iter();
    let mut prefix = prefixes.next().unwrap_or_default();
    // What would be shown with four digits is the next prefix's.
    while value >= 999.5
        && let Some(next) = prefixes.next()
    {
        (value, prefix) = (value / 1000.0, next);
    }
    let digits = match value {
        ..0.05 => 0,
        ..9.995 if !prefix.is_empty() => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{space}{prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_began_anew_has_no_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(per_second(Some(10), 30, second * 2), Some(10.0));
        assert_eq!(per_second(Some(10), 9, second), None);
        assert_eq!(per_second(None, 9, second), None);
        assert_eq!(per_second(Some(10), 30, Duration::ZERO), None);
    }

    #[test]
    fn rates_have_three_digits_or_so() {
        for (rate, shown) in [
            (0.0, "0 bit/s"),
            (0.4, "0.4 bit/s"),
            (12.0, "12.0 bit/s"),
            (999.0, "999 bit/s"),
            (999.6, "1.00 kbit/s"),
            (12_345.0, "12.3 kbit/s"),
            (4_930_000_000.0, "4.93 Gbit/s"),
            (9.9e15, "9900 Tbit/s"),
        ] {
            assert_eq!(bit_rate(rate), shown);
        }
        assert_eq!(count_rate(0.0), "0/s");
        assert_eq!(count_rate(412_345.0), "412k/s");
        assert_eq!(count_rate(-1.0), "0/s");
    }
}
