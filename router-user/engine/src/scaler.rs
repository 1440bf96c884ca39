//! The scaler: how many workers a node, and how many streams a peer, should have for their load.

/// Bounds and thresholds of a number that follows a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalerConfig {
    /// The smallest number.
    pub min: u32,
    /// The largest number.
    pub max: u32,
    /// Mean load from which on one is added; 1 is what one of them can take.
    pub scale_up: f64,
    /// Mean load down from which one is removed.
    pub scale_down: f64,
}

/// The decision of [`ScalerConfig::decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// The number is right.
    Keep,
    /// One is to be added.
    Up,
    /// One is to be removed.
    Down,
}

impl ScalerConfig {
    /// Decides for `n` active ones from the load of all of them together: 2.5 is what two and a half of them can take.
    ///
    /// A steady load never leads up and down in turn: one is removed only if the mean load of the rest stays below the
    /// upper threshold.
    pub fn decide(&self, n: u32, load: f64) -> Scaling {
        if n < self.min {
            return Scaling::Up;
        }
        if n > self.max {
            return Scaling::Down;
        }
        let mean = |n: u32| load / f64::from(n.max(1));
        if n < self.max && mean(n) >= self.scale_up {
            Scaling::Up
        } else if n > self.min && mean(n) <= self.scale_down && mean(n - 1) < self.scale_up {
            Scaling::Down
        } else {
            Scaling::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: ScalerConfig = ScalerConfig {
        min: 4,
        max: 32,
        scale_up: 0.75,
        scale_down: 0.25,
    };

    #[test]
    fn thresholds_are_inclusive() {
        assert_eq!(CONFIG.decide(8, 8.0 * 0.75), Scaling::Up);
        assert_eq!(CONFIG.decide(8, 8.0 * 0.74), Scaling::Keep);
        assert_eq!(CONFIG.decide(8, 8.0 * 0.26), Scaling::Keep);
        assert_eq!(CONFIG.decide(8, 8.0 * 0.25), Scaling::Down);
    }

    #[test]
    fn bounds_hold_whatever_the_load() {
        assert_eq!(CONFIG.decide(32, 32.0), Scaling::Keep);
        assert_eq!(CONFIG.decide(4, 0.0), Scaling::Keep);
        assert_eq!(CONFIG.decide(3, 0.0), Scaling::Up);
        assert_eq!(CONFIG.decide(33, 33.0), Scaling::Down);
    }

    proptest! {
        #[test]
        fn a_steady_load_never_oscillates(
            load in 0.0..40.0_f64,
            start in 1..=32_u32,
            min in 1..=8_u32,
            scale_up in 0.01..=1.0_f64,
            below in 0.0..1.0_f64,
        ) {
            let config = ScalerConfig { min, max: 32, scale_up, scale_down: scale_up * below };
            let mut n = start;
            let mut moves = Vec::new();
            for _ in 0..80 {
                match config.decide(n, load) {
                    Scaling::Keep => break,
                    Scaling::Up => { n += 1; moves.push(Scaling::Up) }
                    Scaling::Down => { n -= 1; moves.push(Scaling::Down) }
                }
            }
            prop_assert_eq!(config.decide(n, load), Scaling::Keep, "still moving after {:?}", &moves);
            prop_assert!(moves.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", moves);
        }
    }
}
