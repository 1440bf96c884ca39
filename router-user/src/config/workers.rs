//! The `[workers]` section.

use std::time::Duration;

use router_common::slots::MAX_WORKERS;

use super::problem::Problems;
use super::reader::Table;

const DEFAULT_MIN: u32 = 4;
const DEFAULT_INITIAL: u32 = 8;
const DEFAULT_MAX: u32 = 32;
const DEFAULT_QUEUE_SIZE: u32 = 1000;
const DEFAULT_SCALE_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_SCALE_UP: f64 = 0.75;
const DEFAULT_SCALE_DOWN: f64 = 0.25;

/// What a packet counts for in a ring's size: one of the usual path's MTU with its headers, rounded up.
const PACKET_ROOM: u32 = 2048;

/// From four super-packets to the largest ring the kernel makes on a small machine.
const QUEUE_SIZES: std::ops::RangeInclusive<u32> = 128..=65_536;

/// Workers: how many, how much waits for each, and what decides.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkersConfig {
    min: u32,
    initial: u32,
    max: u32,
    queue_size: u32,
    scale_interval: Duration,
    scale_up: f64,
    scale_down: f64,
}

impl WorkersConfig {
    /// Fewest workers.
    pub fn min(&self) -> u32 {
        self.min
    }

    /// Workers at the start.
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// Most workers.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Size of a worker's ring in bytes, a power of two with room for `queue_size` packets of 2 KiB.
    pub fn ring_bytes(&self) -> u32 {
        (self.queue_size * PACKET_ROOM).next_power_of_two()
    }

    /// Time between two decisions.
    pub fn scale_interval(&self) -> Duration {
        self.scale_interval
    }

    /// Mean fill of the rings from which on a worker is added, 0 to 1.
    pub fn scale_up(&self) -> f64 {
        self.scale_up
    }

    /// Mean fill of the rings down to which a worker retires, 0 to 1.
    pub fn scale_down(&self) -> f64 {
        self.scale_down
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let min = table.integer("min", 1..=MAX_WORKERS, problems);
        let initial = table.integer("initial", 1..=MAX_WORKERS, problems);
        let max = table.integer("max", 1..=MAX_WORKERS, problems);
        // What is not written gives way to what is.
        let most = max.as_ref().map_or(DEFAULT_MAX, |found| found.value);
        let least = min.as_ref().map_or(DEFAULT_MIN.min(most), |found| found.value);
        if let Some(min) = min.filter(|min| min.value > most) {
            let wrong = format!("{} is more than workers.max, {most}", min.value);
            problems.add(&min.place, wrong, "at most workers.max");
        } else if let Some(initial) = initial
            .as_ref()
            .filter(|found| !(least..=most).contains(&found.value))
        {
            let wrong = format!("{} is outside {least} to {most}", initial.value);
            problems.add(&initial.place, wrong, "workers.min to workers.max");
        }
        let queue_size = table.integer("queue_size", QUEUE_SIZES, problems);
        let scale_interval = table.duration("scale_interval", problems);
        let scale_up = table.share("scale_up", problems);
        let scale_down = table.share("scale_down", problems);
        let up = scale_up.as_ref().map_or(DEFAULT_SCALE_UP, |found| found.value);
        let down = scale_down
            .as_ref()
            .map_or(DEFAULT_SCALE_DOWN, |found| found.value);
        if down >= up {
            let place = scale_down.or(scale_up).map(|found| found.place);
            problems.add(
                &place.unwrap_or_else(|| table.absent("scale_down")),
                format!("scale_down, {down}, is not below scale_up, {up}"),
                "a scale_down below scale_up",
            );
        }
        table.finish(problems);
        Self {
            min: least,
            initial: initial.map_or(DEFAULT_INITIAL.max(least).min(most), |found| found.value),
            max: most,
            queue_size: queue_size.map_or(DEFAULT_QUEUE_SIZE, |found| found.value),
            scale_interval: scale_interval.unwrap_or(DEFAULT_SCALE_INTERVAL),
            scale_up: up,
            scale_down: down,
        }
    }
}
