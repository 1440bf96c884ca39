//! What `[workers]` and `[streams]` have in common: bounds, thresholds, and the time between two decisions.

use std::time::Duration;

use super::fields::Fields;
use super::problem::Problems;
use super::value::Value;
use stream_router_engine::scaler::ScalerConfig;

/// How often a number is decided upon, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScalingConfig {
    /// Bounds and thresholds.
    pub scaler: ScalerConfig,
    /// Time between two decisions.
    pub interval: Duration,
}

/// The names of the lower and the upper bound, and what they may be at most.
pub(super) struct Bounds {
    pub(super) min: &'static str,
    pub(super) max: &'static str,
    pub(super) most: u32,
}

impl ScalingConfig {
    /// Returns the values of a section that are about scaling.
    pub(super) fn values(self, bounds: &Bounds) -> [(&'static str, Value); 5] {
        [
            (bounds.min, self.scaler.min.into()),
            (bounds.max, self.scaler.max.into()),
            ("scale_interval", self.interval.into()),
            ("scale_up", self.scaler.scale_up.into()),
            ("scale_down", self.scaler.scale_down.into()),
        ]
    }

    pub(super) fn read(
        fields: &mut Fields<'_>,
        bounds: &Bounds,
        default: Self,
        problems: &mut Problems,
    ) -> Self {
        let min = fields.integer(bounds.min, 1..=bounds.most, problems);
        let max = fields.integer(bounds.max, 1..=bounds.most, problems);
        // What is not written gives way to what is.
        let most = max.unwrap_or(default.scaler.max);
        let least = min.unwrap_or(default.scaler.min.min(most));
        if least > most {
            let upper = fields.name(bounds.max);
            let wrong = format!("{least} is more than {upper}, {most}");
            problems.add(fields.name(bounds.min), wrong, format!("at most {upper}"));
        }
        let interval = fields.duration("scale_interval", problems);
        let scale_up = fields.share("scale_up", problems);
        let scale_down = fields.share("scale_down", problems);
        let up = scale_up.unwrap_or(default.scaler.scale_up);
        let down = scale_down.unwrap_or(default.scaler.scale_down);
        if down >= up {
            let at = match (scale_down, scale_up) {
                (None, Some(_)) => "scale_up",
                _ => "scale_down",
            };
            let wrong = format!("scale_down, {down}, is not below scale_up, {up}");
            problems.add(fields.name(at), wrong, "a scale_down below scale_up");
        }
        Self {
            scaler: ScalerConfig {
                min: least,
                max: most,
                scale_up: up,
                scale_down: down,
            },
            interval: interval.unwrap_or(default.interval),
        }
    }
}
