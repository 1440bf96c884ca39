//! What a router can be told: `[workers]`, `[connections]` and `[streams]`, of a file or of a program.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use toml::de::DeTable;

use super::problem::{Problem, Problems};
use super::reader::{Lines, Table};
use super::{ConnectionsConfig, StreamsConfig, WorkersConfig};

/// Every parameter of a router, validated.
///
/// The node's configuration file has the same three sections, read by the same code: a default or a bound stands in one
/// place. What is not said has its default.
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
/// | parts of the cache of flows | `cache_shard_count` | `connections.shards` | 16 |
/// | flows that are remembered | `max_connections` | `connections.max_entries` | 262144 |
/// | threads of a node; what a program embeds runs where it is started | `worker_threads` | `workers.threads` | half the CPUs |
///
/// # The time to live
/// The specification names two: 5 s and 5 s in its block of defaults, 30 s and 10 s in its notes on performance. The
/// defaults are those of the block, as it is what a program gets that says nothing. They also do better what the notes
/// are after, which is to have one-time connections gone soon: a flow that pauses for longer is placed anew, and loses
/// nothing by it, as what it sent before has long been written. Whoever wants 30 s and 10 s says so.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use stream_router::router::StreamRouterConfig;
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
/// # Ok::<(), stream_router::router::StreamRouterConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRouterConfig {
    pub(super) workers: WorkersConfig,
    pub(super) connections: ConnectionsConfig,
    pub(super) streams: StreamsConfig,
}

impl StreamRouterConfig {
    /// Nothing said yet: every parameter has its default.
    pub fn builder() -> StreamRouterConfigBuilder {
        StreamRouterConfigBuilder::default()
    }

    /// How many workers there are, and how much may wait for each.
    pub fn workers(&self) -> &WorkersConfig {
        &self.workers
    }

    /// How long flows are remembered.
    pub fn connections(&self) -> &ConnectionsConfig {
        &self.connections
    }

    /// How many streams a peer has.
    pub fn streams(&self) -> &StreamsConfig {
        &self.streams
    }

    /// What a router runs with that ran with `self` and was given `new`: the number of threads, what the queues hold and
    /// how many flows are remembered stay as they were.
    #[must_use]
    pub fn adopting(&self, new: &Self) -> Self {
        Self {
            workers: self.workers.with_scaling(new.workers.scaling()),
            connections: self.connections.with_times_of(&new.connections),
            streams: new.streams.clone(),
        }
    }

    /// Reads the three sections of a document.
    pub fn read(root: &mut Table<'_>, problems: &mut Problems) -> Self {
        Self {
            workers: WorkersConfig::read(root.table("workers", problems), problems),
            connections: ConnectionsConfig::read(root.table("connections", problems), problems),
            streams: StreamsConfig::read(root.table("streams", problems), problems),
        }
    }

    /// Reads what stands in `document`, by the one reader that knows what is allowed.
    fn from_document(document: &toml::Table) -> Result<Self, StreamRouterConfigError> {
        let text = document.to_string();
        let lines = Lines::new(&text);
        let mut problems = Problems::new(Path::new(""));
        let (parsed, syntax_errors) = DeTable::parse_recoverable(&text);
        debug_assert!(syntax_errors.is_empty(), "a document that was just written");
        let mut root = Table::root(parsed.get_ref(), &lines);
        let config = Self::read(&mut root, &mut problems);
        root.finish(&mut problems);
        match problems.into_found() {
            found if found.is_empty() => Ok(config),
            found => Err(StreamRouterConfigError {
                problems: found.into_iter().map(FieldProblem).collect(),
            }),
        }
    }

    fn to_document(&self) -> toml::Table {
        let sections = [
            ("workers", self.workers.to_table()),
            ("connections", self.connections.to_table()),
            ("streams", self.streams.to_table()),
        ];
        sections
            .into_iter()
            .map(|(name, section)| (name.to_owned(), section.into()))
            .collect()
    }
}

impl Default for StreamRouterConfig {
    fn default() -> Self {
        Self::from_document(&toml::Table::new()).expect("every default is within its bounds")
    }
}

/// As in the node's file: three tables, durations as texts such as "5s".
impl Serialize for StreamRouterConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_document().serialize(serializer)
    }
}

/// Fails with every problem there is, if there is one.
impl<'de> Deserialize<'de> for StreamRouterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = toml::Table::deserialize(deserializer)?;
        Self::from_document(&document).map_err(D::Error::custom)
    }
}

/// Says what a [`StreamRouterConfig`] is to have instead of its defaults; the names are the specification's.
#[derive(Clone, Debug, Default)]
pub struct StreamRouterConfigBuilder {
    document: toml::Table,
}

/// Makes one method for each parameter.
macro_rules! parameters {
    ($($section:literal . $field:literal: $(#[$doc:meta])* $name:ident($type:ty);)*) => {
        impl StreamRouterConfigBuilder {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(self, value: $type) -> Self {
                self.with($section, $field, value)
            })*
        }
    };
}

parameters! {
    "streams"."min_per_peer": /// Fewest streams to a peer, 1 to 16; the first one is there from the start.
        min_streams_per_peer(u32);
    "streams"."max_per_peer": /// Most streams to a peer, 1 to 16.
        max_streams_per_peer(u32);
    "streams"."throughput_threshold": /// Packets a second that one stream is good for, 1 to 100,000,000.
        throughput_threshold(u32);
    "streams"."scale_up": /// Mean share of the threshold from which on a stream is added, above 0 and at most 1.
        scale_up_threshold(f64);
    "streams"."scale_down": /// Mean share of the threshold down to which a stream retires, above 0 and below the other.
        scale_down_threshold(f64);
    "streams"."scale_interval": /// Time between two decisions on the number of streams, 100 ms to 1 h.
        scaling_interval(Duration);
    "workers"."min": /// Fewest workers, 1 to 32.
        min_workers(u32);
    "workers"."max": /// Most workers, 1 to 32.
        max_workers(u32);
    "workers"."initial": /// Workers at the start, from the fewest to the most.
        initial_workers(u32);
    "workers"."queue_size": /// Packets that may wait for a worker, 128 to 65536.
        worker_queue_size(u32);
    "workers"."scale_interval": /// Time between two decisions on the number of workers, 100 ms to 1 h.
        worker_scale_interval(Duration);
    "workers"."scale_up": /// Mean fill of the queues from which on a worker is added, above 0 and at most 1.
        worker_scale_up_threshold(f64);
    "workers"."scale_down": /// Mean fill of the queues down to which a worker retires, above 0 and below the other.
        worker_scale_down_threshold(f64);
    "workers"."threads": /// Threads of a node, 1 to 256.
        worker_threads(u32);
    "connections"."ttl": /// Idle time after which a flow is forgotten, 100 ms to 1 h; until then it keeps its worker.
        connection_ttl(Duration);
    "connections"."cleanup_interval": /// Time in which the cache of flows is read once and cleaned, 100 ms to 1 h.
        cleanup_interval(Duration);
    "connections"."shards": /// Parts of the cache of flows, 1 to 1024.
        cache_shard_count(u32);
    "connections"."max_entries": /// Flows that are remembered, 4096 to 4194304; the longest idle makes room for a new one.
        max_connections(u32);
}

impl StreamRouterConfigBuilder {
    /// Validates what was said.
    ///
    /// # Errors
    /// Every parameter that is out of its bounds or does not go with the others.
    pub fn build(self) -> Result<StreamRouterConfig, StreamRouterConfigError> {
        StreamRouterConfig::from_document(&self.document)
    }

    fn with(mut self, section: &str, field: &str, value: impl Parameter) -> Self {
        let section = self
            .document
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        if let Some(section) = section.as_table_mut() {
            section.insert(field.to_owned(), value.to_value());
        }
        self
    }
}

/// A value as it stands in a file.
pub(crate) trait Parameter {
    fn to_value(self) -> toml::Value;
}

impl Parameter for u32 {
    fn to_value(self) -> toml::Value {
        i64::from(self).into()
    }
}

impl Parameter for f64 {
    fn to_value(self) -> toml::Value {
        self.into()
    }
}

impl Parameter for Duration {
    fn to_value(self) -> toml::Value {
        humantime::format_duration(self).to_string().into()
    }
}

/// A section of named parameters.
pub(super) fn section<const N: usize>(fields: [(&str, toml::Value); N]) -> toml::Table {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Why a [`StreamRouterConfig`] cannot be made; prints one line per problem.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", lines(problems))]
pub struct StreamRouterConfigError {
    problems: Vec<FieldProblem>,
}

impl StreamRouterConfigError {
    /// Every problem, at least one.
    pub fn problems(&self) -> &[FieldProblem] {
        &self.problems
    }
}

fn lines(problems: &[FieldProblem]) -> String {
    let lines: Vec<_> = problems.iter().map(FieldProblem::to_string).collect();
    lines.join("\n")
}

/// One parameter that is wrong. Prints as `FIELD: what is wrong (allowed: what is allowed)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem(Problem);

impl FieldProblem {
    /// Its name in a file, such as `workers.max`.
    pub fn field(&self) -> &str {
        self.0.field()
    }

    /// What is wrong with it.
    pub fn wrong(&self) -> &str {
        self.0.wrong()
    }

    /// What is allowed in its place.
    pub fn allowed(&self) -> &str {
        self.0.allowed()
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (allowed: {})",
            self.field(),
            self.wrong(),
            self.allowed()
        )
    }
}

#[cfg(test)]
mod tests {
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
