//! What is sent to a collector, by a program that was built with the feature `otlp`.

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod built;

#[cfg(not(feature = "otlp"))]
pub(super) use absent::{Export, Exporter, authorities, headers, start};
#[cfg(feature = "otlp")]
pub(super) use built::{Export, Exporter, authorities, headers, start};
