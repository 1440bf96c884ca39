//! The `[streams]` section.

use std::time::Duration;

use super::fields::Fields;
use super::problem::Problems;
use super::scaling::{Bounds, ScalingConfig};
use super::value::Value;
use stream_router_engine::scaler::ScalerConfig;

const BOUNDS: Bounds = Bounds {
    min: "min_per_peer",
    max: "max_per_peer",
    most: MAX_STREAMS_PER_PEER,
};

/// A connection carries that many and a few more, so that one can close while another opens.
pub const MAX_STREAMS_PER_PEER: u32 = 16;

const DEFAULT: ScalingConfig = ScalingConfig {
    scaler: ScalerConfig {
        min: 1,
        max: 10,
        scale_up: 0.8,
        scale_down: 0.3,
    },
    interval: Duration::from_secs(5),
};

/// About half of what one stream carried with both of its ends, and the senders, on two CPUs: 180,000 to 240,000 frames
/// of 64 bytes a second.
const DEFAULT_THROUGHPUT_THRESHOLD: u32 = 100_000;

const THROUGHPUT_THRESHOLDS: std::ops::RangeInclusive<u32> = 1..=100_000_000;

/// Streams: how many a peer has, and what decides.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsConfig {
    scaling: ScalingConfig,
    throughput_threshold: u32,
}

impl StreamsConfig {
    /// Bounds, thresholds as shares of [`StreamsConfig::throughput_threshold`], and the time between two decisions.
    pub fn scaling(&self) -> ScalingConfig {
        self.scaling
    }

    /// Returns how many frames per second one stream is good for; a super-packet is one frame.
    pub fn throughput_threshold(&self) -> u32 {
        self.throughput_threshold
    }

    /// Returns the values of the section.
    pub(super) fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = self.scaling.values(&BOUNDS).to_vec();
        values.push(("throughput_threshold", self.throughput_threshold.into()));
        values
    }

    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems) -> Self {
        let scaling = ScalingConfig::read(&mut fields, &BOUNDS, DEFAULT, problems);
        let throughput_threshold = fields.integer("throughput_threshold", THROUGHPUT_THRESHOLDS, problems);
        fields.finish(problems);
        Self {
            scaling,
            throughput_threshold: throughput_threshold.unwrap_or(DEFAULT_THROUGHPUT_THRESHOLD),
        }
    }
}
