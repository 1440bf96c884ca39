//! Makes a configuration parameter by parameter.

use std::time::Duration;

use super::value::{Value, Values};
use super::{StreamRouterConfig, StreamRouterConfigError};

/// Says what a [`StreamRouterConfig`] is to have instead of its defaults.
#[derive(Clone, Debug, Default)]
pub struct StreamRouterConfigBuilder {
    sections: Values,
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
    "connections"."shards": /// Parts of the cache of flows, 1 to 1024; and of the table of destinations, rounded up to a power of two of
        /// at least 2.
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
        StreamRouterConfig::from_values(&self.sections)
    }

    fn with(mut self, section: &str, field: &str, value: impl Into<Value>) -> Self {
        let section = self
            .sections
            .entry(section.to_owned())
            .or_insert_with(|| Values::new().into());
        if let Value::Table(values) = section {
            values.insert(field.to_owned(), value.into());
        }
        self
    }
}
