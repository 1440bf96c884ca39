//! The `[workers]` section.

use std::time::Duration;

use super::fields::Fields;
use super::problem::Problems;
use super::scaling::{Bounds, ScalingConfig};
use super::value::Value;
use router_common::slots::MAX_WORKERS;
use stream_router_engine::scaler::ScalerConfig;

const BOUNDS: Bounds = Bounds {
    min: "min",
    max: "max",
    most: MAX_WORKERS,
};

const DEFAULT: ScalingConfig = ScalingConfig {
    scaler: ScalerConfig {
        min: 4,
        max: 32,
        scale_up: 0.75,
        scale_down: 0.25,
    },
    interval: Duration::from_secs(5),
};

const MAX_THREADS: u32 = 256;
const DEFAULT_INITIAL: u32 = 8;
const DEFAULT_QUEUE_SIZE: u32 = 1000;

/// What a packet counts for in a ring's size: one of the usual path's MTU with its headers, rounded up.
const PACKET_ROOM: u32 = 2048;

/// From four super-packets to the largest ring the kernel makes on a small machine.
const QUEUE_SIZES: std::ops::RangeInclusive<u32> = 128..=65_536;

/// Workers: how many, how much waits for each, and what decides.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkersConfig {
    scaling: ScalingConfig,
    initial: u32,
    queue_size: u32,
    threads: u32,
}

impl WorkersConfig {
    /// Bounds, thresholds as mean fill of the rings, and the time between two decisions.
    pub fn scaling(&self) -> ScalingConfig {
        self.scaling
    }

    /// Returns how many workers there are at the start.
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// Returns how many packets may wait for a worker.
    pub fn queue_size(&self) -> u32 {
        self.queue_size
    }

    /// Returns the size of a worker's ring in bytes, a power of two with room for `queue_size` packets of 2 KiB.
    #[doc(hidden)]
    pub fn ring_bytes(&self) -> u32 {
        (self.queue_size * PACKET_ROOM).next_power_of_two()
    }

    /// Threads that workers, connections and streams are spread over; never more than there are CPUs.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Returns `self` with another scaling.
    pub(super) fn with_scaling(&self, scaling: ScalingConfig) -> Self {
        Self {
            scaling,
            ..self.clone()
        }
    }

    /// Returns the values of the section.
    pub(super) fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = self.scaling.values(&BOUNDS).to_vec();
        values.extend([
            ("initial", self.initial.into()),
            ("queue_size", self.queue_size.into()),
            ("threads", self.threads.into()),
        ]);
        values
    }

    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems) -> Self {
        let scaling = ScalingConfig::read(&mut fields, &BOUNDS, DEFAULT, problems);
        let (least, most) = (scaling.scaler.min, scaling.scaler.max);
        let initial = fields.integer("initial", 1..=MAX_WORKERS, problems);
        if let Some(initial) = initial.filter(|initial| least <= most && !(least..=most).contains(initial)) {
            let wrong = format!("{initial} is outside {least} to {most}");
            problems.add(fields.name("initial"), wrong, "workers.min to workers.max");
        }
        let queue_size = fields.integer("queue_size", QUEUE_SIZES, problems);
        let threads = fields.integer("threads", 1..=MAX_THREADS, problems);
        fields.finish(problems);
        Self {
            scaling,
            initial: initial.unwrap_or(DEFAULT_INITIAL.max(least).min(most)),
            queue_size: queue_size.unwrap_or(DEFAULT_QUEUE_SIZE),
            threads: threads.unwrap_or_else(default_threads),
        }
    }
}

/// Returns half the CPUs: for each packet that these threads carry, the host and its applications have about as much to
/// do.
fn default_threads() -> u32 {
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    (n_cpus / 2).clamp(1, MAX_THREADS)
}
