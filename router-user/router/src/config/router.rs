//! What a router can be told: `[workers]`, `[connections]` and `[streams]`, of a file or of a program.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::Fields;
use super::problem::{Problems, StreamRouterConfigError};
use super::value::{Value, Values};
use super::{ConnectionsConfig, StreamRouterConfigBuilder, StreamsConfig, WorkersConfig};

/// Every parameter of a router, validated.
///
/// The node's configuration file has the same three sections, validated by the same code: a default or a bound stands in
/// one place. What is not said has its default.
///
/// | parameter | builder | file | default |
/// |---|---|---|---|
/// | fewest and most streams to a peer | `min_streams_per_peer`, `max_streams_per_peer` | `streams.min_per_peer`, `streams.max_per_peer` | 1, 10 |
/// | frames a second that one stream is good for | `throughput_threshold` | `streams.throughput_threshold` | 100000 |
/// | share of that from which on, and down to which, streams are added and retired | `scale_up_threshold`, `scale_down_threshold` | `streams.scale_up`, `streams.scale_down` | 0.8, 0.3 |
/// | time between two such decisions | `scaling_interval` | `streams.scale_interval` | 5 s |
/// | fewest and most workers, those at the start | `min_workers`, `max_workers`, `initial_workers` | `workers.min`, `workers.max`, `workers.initial` | 4, 32, 8 |
/// | packets that may wait for a worker | `worker_queue_size` | `workers.queue_size` | 1000 |
/// | time between two decisions on the number of workers | `worker_scale_interval` | `workers.scale_interval` | 5 s |
/// | mean fill of the queues from which on, and down to which, workers are added and retired | `worker_scale_up_threshold`, `worker_scale_down_threshold` | `workers.scale_up`, `workers.scale_down` | 0.75, 0.25 |
/// | idle time after which a flow is forgotten | `connection_ttl` | `connections.ttl` | 5 s |
/// | time in which the cache of flows is read once and cleaned | `cleanup_interval` | `connections.cleanup_interval` | 5 s |
/// | parts of the cache of flows, and (rounded up to a power of two) of the table of destinations | `cache_shard_count` | `connections.shards` | 16 |
/// | flows that are remembered | `max_connections` | `connections.max_entries` | 262144 |
/// | threads of a node; what a program embeds runs where it is started | `worker_threads` | `workers.threads` | half the CPUs |
///
/// # The time to live
/// With the default of 5 s, and a cleaning that takes 5 s, one-time connections are gone soon. A flow that pauses for
/// longer is placed anew, and loses nothing by it, as what it sent before has long been written. Where most flows pause
/// now and then, 30 s and 10 s keep their places, at the price of more remembered flows.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use stream_router::StreamRouterConfig;
///
/// let config = StreamRouterConfig::builder()
///     .max_workers(16)
///     .connection_ttl(Duration::from_secs(30))
///     .build()?;
/// assert_eq!(config.workers().initial(), 8);
///
/// let error = StreamRouterConfig::builder().max_workers(33).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "workers.max: 33 is out of range (allowed: an integer from 1 to 32)"
/// );
/// # Ok::<(), stream_router::StreamRouterConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRouterConfig {
    pub(super) workers: WorkersConfig,
    pub(super) connections: ConnectionsConfig,
    pub(super) streams: StreamsConfig,
}

impl StreamRouterConfig {
    /// Begins a configuration in which every parameter has its default.
    pub fn builder() -> StreamRouterConfigBuilder {
        StreamRouterConfigBuilder::default()
    }

    /// Returns how many workers there are, and how much may wait for each.
    pub fn workers(&self) -> &WorkersConfig {
        &self.workers
    }

    /// Returns how long flows are remembered.
    pub fn connections(&self) -> &ConnectionsConfig {
        &self.connections
    }

    /// Returns how many streams a peer has.
    pub fn streams(&self) -> &StreamsConfig {
        &self.streams
    }

    /// Returns what a router runs with that ran with `self` and was given `new`: the number of threads, what
    /// the queues hold and how many flows are remembered stay as they were.
    #[doc(hidden)]
    #[must_use]
    pub fn adopting(&self, new: &Self) -> Self {
        Self {
            workers: self.workers.with_scaling(new.workers.scaling()),
            connections: self.connections.with_times_of(&new.connections),
            streams: new.streams.clone(),
        }
    }

    /// Validates sections that were read from elsewhere, such as a file.
    ///
    /// # Errors
    /// Every parameter that is unknown, out of its bounds, or does not go with the others.
    #[doc(hidden)]
    pub fn from_values(sections: &Values) -> Result<Self, StreamRouterConfigError> {
        let mut problems = Problems::default();
        let mut top = Fields::top(sections);
        let config = Self {
            workers: WorkersConfig::read(top.section("workers", &mut problems), &mut problems),
            connections: ConnectionsConfig::read(top.section("connections", &mut problems), &mut problems),
            streams: StreamsConfig::read(top.section("streams", &mut problems), &mut problems),
        };
        top.finish(&mut problems);
        problems.unless_any(config)
    }

    fn values(&self) -> Values {
        let sections = [
            ("workers", self.workers.values()),
            ("connections", self.connections.values()),
            ("streams", self.streams.values()),
        ];
        let named = |(name, value): (&str, Value)| (name.to_owned(), value);
        let section = |values: Vec<_>| values.into_iter().map(named).collect::<Values>();
        sections
            .into_iter()
            .map(|(name, values)| (name.to_owned(), section(values).into()))
            .collect()
    }
}

impl Default for StreamRouterConfig {
    fn default() -> Self {
        Self::from_values(&Values::new()).expect("every default is within its bounds")
    }
}

/// As in the node's file: three tables, durations as texts such as "5s".
impl Serialize for StreamRouterConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values().serialize(serializer)
    }
}

/// Fails with every problem there is, if there is one.
impl<'de> Deserialize<'de> for StreamRouterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sections = Values::deserialize(deserializer)?;
        Self::from_values(&sections).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EVERYTHING: &str = r#"
        [workers]
        min = 2
        max = 16
        initial = 3
        queue_size = 500
        threads = 2
        scale_interval = "1s 500ms"
        scale_up = 0.7
        scale_down = 0.2
        [connections]
        ttl = "30s"
        cleanup_interval = "10s"
        max_entries = 8192
        shards = 4
        [streams]
        min_per_peer = 2
        max_per_peer = 5
        throughput_threshold = 1000
        scale_interval = "2s"
        scale_up = 0.9
        scale_down = 0.4
    "#;

    fn everything() -> StreamRouterConfig {
        StreamRouterConfig::builder()
            .min_workers(2)
            .max_workers(16)
            .initial_workers(3)
            .worker_queue_size(500)
            .worker_threads(2)
            .worker_scale_interval(Duration::from_millis(1500))
            .worker_scale_up_threshold(0.7)
            .worker_scale_down_threshold(0.2)
            .connection_ttl(Duration::from_secs(30))
            .cleanup_interval(Duration::from_secs(10))
            .max_connections(8192)
            .cache_shard_count(4)
            .min_streams_per_peer(2)
            .max_streams_per_peer(5)
            .throughput_threshold(1000)
            .scaling_interval(Duration::from_secs(2))
            .scale_up_threshold(0.9)
            .scale_down_threshold(0.4)
            .build()
            .expect("a valid configuration")
    }

    #[test]
    fn builder_and_serde_say_the_same_in_the_same_words() {
        let built = everything();

        let deserialized: StreamRouterConfig = toml::from_str(EVERYTHING).unwrap();

        assert_ne!(built, StreamRouterConfig::default());
        assert_eq!(deserialized, built);
    }

    #[test]
    fn what_is_serialized_is_read_back_in_toml_and_in_json() {
        for config in [everything(), StreamRouterConfig::default()] {
            let toml = toml::to_string(&config).unwrap();
            let json = serde_json::to_string(&config).unwrap();

            assert_eq!(toml::from_str::<StreamRouterConfig>(&toml).unwrap(), config);
            assert_eq!(serde_json::from_str::<StreamRouterConfig>(&json).unwrap(), config);
        }
    }

    #[test]
    fn every_problem_of_a_builder_names_field_fault_and_what_is_allowed() {
        let error = StreamRouterConfig::builder()
            .min_workers(9)
            .max_workers(8)
            .scale_up_threshold(f64::NAN)
            .connection_ttl(Duration::ZERO)
            .build()
            .unwrap_err();

        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "connections.ttl: 0s is out of range (allowed: a duration from \"100ms\" to \"1h\", such as \"5s\")",
                "streams.scale_up: is out of range (allowed: a number above 0, at most 1)",
                "workers.min: 9 is more than workers.max, 8 (allowed: at most workers.max)",
            ]
        );
        assert_eq!(error.problems()[0].field(), "connections.ttl");
    }

    #[test]
    fn deserializing_validates() {
        let unknown = toml::from_str::<StreamRouterConfig>("[workers]\nmost = 3").unwrap_err();
        let outside = serde_json::from_str::<StreamRouterConfig>(r#"{"workers": {"max": 33}}"#).unwrap_err();

        assert!(
            unknown.to_string().contains("workers.most: unknown field"),
            "{unknown}"
        );
        assert!(
            outside.to_string().contains("workers.max: 33 is out of range"),
            "{outside}"
        );
    }

    #[test]
    fn a_bound_that_is_said_moves_a_default_that_is_not() {
        let config = StreamRouterConfig::builder().max_workers(2).build().unwrap();

        assert_eq!(
            (config.workers().scaling().scaler.min, config.workers().initial()),
            (2, 2)
        );
    }
}
