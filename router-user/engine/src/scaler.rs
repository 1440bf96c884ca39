//! How many workers a node and how many streams a peer should have: follows their load.

/// Bounds and thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalerConfig {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// From this mean load on, one more; 1 is what one of them can take.
    pub scale_up: f64,
    /// Down to this mean load, one less.
    pub scale_down: f64,
}

/// What to do with their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// It is right.
    Keep,
    /// One more.
    Up,
    /// One less.
    Down,
}

impl ScalerConfig {
    /// Decides from the load of the `n` active ones, all together: 2.5 is what two and a half of them can take.
    ///
    /// A steady load never goes up and down in turn: one goes only if the rest stays below the upper threshold.
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
