//! `GET /v1/history`: what the node did in the last minutes, for plots that are opened after something happened.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::control::{CounterKind, Resource, Source};

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Most samples kept: those of 15 minutes, 42 KiB.
const MAX_SAMPLES: usize = 900;

/// Samples, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct History {
    /// The samples.
    pub samples: VecDeque<Sample>,
}

/// What was counted from the start of the node to one moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sample {
    /// The moment, in seconds since the node started.
    pub uptime_seconds: f64,
    /// Frames sent to all peers.
    pub tx_frames: u64,
    /// Bytes of these frames.
    pub tx_bytes: u64,
    /// Frames injected from all peers.
    pub rx_frames: u64,
    /// Bytes of these frames.
    pub rx_bytes: u64,
    /// Packets dropped for any reason.
    pub drops: u64,
}

impl Resource for History {
    const PATH: &'static str = "/v1/history";
}

/// Keeps the last samples.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<History>);

impl Recorder {
    /// Takes another sample.
    pub(super) fn record(&self, source: &dyn Source) {
        let counters = match source.counters() {
            Ok(counters) => counters.counters,
            // A request for the counters gets the same error.
            Err(error) => return debug!(%error, "no sample for the history"),
        };
        let traffic = source.traffic();
        let drops = counters
            .iter()
            .filter(|counter| counter.kind == CounterKind::Drop);
        self.push(Sample {
            uptime_seconds: source.status().uptime_seconds,
            tx_frames: traffic.tx_frames,
            tx_bytes: traffic.tx_bytes,
            rx_frames: traffic.rx_frames,
            rx_bytes: traffic.rx_bytes,
            drops: drops.map(|counter| counter.value).sum(),
        });
    }

    /// Returns the samples so far.
    pub(super) fn history(&self) -> History {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, sample: Sample) {
        let samples = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).samples;
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::example::Example;

    #[test]
    fn a_sample_is_the_sum_over_peers_and_reasons() {
        let recorder = Recorder::default();

        recorder.record(&Example);

        let expected = Sample {
            uptime_seconds: 1.5,
            tx_frames: 1,
            tx_bytes: 2,
            rx_frames: 3,
            rx_bytes: 4,
            // What the example counts is no drop.
            drops: 0,
        };
        assert_eq!(recorder.history().samples, [expected]);
    }

    #[test]
    fn only_the_last_samples_are_kept() {
        let recorder = Recorder::default();
        let sample = |n: usize| Sample {
            uptime_seconds: n as f64,
            tx_frames: 0,
            tx_bytes: 0,
            rx_frames: 0,
            rx_bytes: 0,
            drops: 0,
        };

        (0..=MAX_SAMPLES).for_each(|n| recorder.push(sample(n)));

        let samples = recorder.history().samples;
        assert_eq!(samples.len(), MAX_SAMPLES);
        assert_eq!(
            (samples.front(), samples.back()),
            (Some(&sample(1)), Some(&sample(MAX_SAMPLES)))
        );
    }
}
