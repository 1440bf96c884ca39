//! What `[workers]` and `[streams]` have in common: bounds, thresholds, and the time between two decisions.

use std::time::Duration;

use super::problem::Problems;
use super::reader::Table;
use super::router::{Parameter, section};
use stream_router_engine::scaler::ScalerConfig;

/// How often a number is decided upon, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalingConfig {
    /// Bounds and thresholds.
    pub scaler: ScalerConfig,
    /// Time between two decisions.
    pub interval: Duration,
}

/// The names of the lower and the upper bound, and what they may be at most.
pub(super) struct Bounds {
    pub(super) section: &'static str,
    pub(super) min: &'static str,
    pub(super) max: &'static str,
    pub(super) most: u32,
}

impl ScalingConfig {
    /// What of a section is about scaling, as it stands in a file.
    pub(super) fn to_table(self, bounds: &Bounds) -> toml::Table {
        section([
            (bounds.min, self.scaler.min.to_value()),
            (bounds.max, self.scaler.max.to_value()),
            ("scale_interval", self.interval.to_value()),
            ("scale_up", self.scaler.scale_up.to_value()),
            ("scale_down", self.scaler.scale_down.to_value()),
        ])
    }

    pub(super) fn read(
        table: &mut Table<'_>,
        bounds: &Bounds,
        default: Self,
        problems: &mut Problems,
    ) -> Self {
        let min = table.integer(bounds.min, 1..=bounds.most, problems);
        let max = table.integer(bounds.max, 1..=bounds.most, problems);
        // What is not written gives way to what is.
        let most = max.as_ref().map_or(default.scaler.max, |found| found.value);
        let least = min
            .as_ref()
            .map_or(default.scaler.min.min(most), |found| found.value);
        if let Some(min) = min.filter(|min| min.value > most) {
            let upper = format!("{}.{}", bounds.section, bounds.max);
            let wrong = format!("{} is more than {upper}, {most}", min.value);
            problems.add(&min.place, wrong, format!("at most {upper}"));
        }
        let interval = table.duration("scale_interval", problems);
        let scale_up = table.share("scale_up", problems);
        let scale_down = table.share("scale_down", problems);
        let up = scale_up
            .as_ref()
            .map_or(default.scaler.scale_up, |found| found.value);
        let down = scale_down
            .as_ref()
            .map_or(default.scaler.scale_down, |found| found.value);
        if down >= up {
            let place = scale_down.or(scale_up).map(|found| found.place);
            problems.add(
                &place.unwrap_or_else(|| table.absent("scale_down")),
                format!("scale_down, {down}, is not below scale_up, {up}"),
                "a scale_down below scale_up",
            );
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
