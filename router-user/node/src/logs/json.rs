//! One JSON object in each line, for programs that collect logs.

use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::names::{PEER, PeerNames};
use stream_router_engine::causes::with_sources;

/// Name of the value beside `peer` that has the name of the peer.
const PEER_NAME: &str = "peer_name";

/// `timestamp`, `level` and `target`, then `message` and the values under their own names, those of the spans around the
/// event included. Beside the id of a peer that has a name stands `peer_name`. A value of the event hides one of a span,
/// and one of an inner span that of an outer one.
pub(super) struct JsonFormat(pub(super) PeerNames);

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        let mut object = Object::new(&self.0);
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(Value::Object(values)) = serde_json::from_str(fields)
            {
                object.values.extend(values);
            }
        }
        event.record(&mut object);
        // After the values: none of them can pass for one of these.
        object.put("timestamp", now.to_string());
        object.put("level", metadata.level().as_str());
        object.put("target", metadata.target());
        writeln!(writer, "{}", Value::Object(object.values))
    }
}

/// Keeps the values of a span as [`JsonFormat`] reads them.
pub(super) struct JsonFields(pub(super) PeerNames);

impl<'writer> FormatFields<'writer> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut object = Object::new(&self.0);
        fields.record(&mut object);
        write!(writer, "{}", Value::Object(object.values))
    }
}

struct Object<'a> {
    values: Map<String, Value>,
    names: &'a PeerNames,
}

impl<'a> Object<'a> {
    fn new(names: &'a PeerNames) -> Self {
        let values = Map::new();
        Self { values, names }
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }
}

impl Visit for Object<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), with_sources(error));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == PEER {
            // One of an outer span is not this peer's.
            self.put(PEER_NAME, self.names.of(&text));
        }
        self.put(field.name(), text);
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, debug_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logs::test_lines::Lines;

    #[test]
    fn a_line_has_the_values_of_its_spans_unless_it_says_its_own() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields(PeerNames::default()))
            .event_format(JsonFormat(PeerNames::default()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _peer = debug_span!("connection", peer = "a peer", connection = %7, level = "none").entered();
            let _stream = debug_span!("stream", stream = 2_u8).entered();
            debug!(connection = 8, "stream failed");
        });

        let line: Value = serde_json::from_str(&lines.text()).unwrap();

        assert_eq!(line["peer"], "a peer");
        assert_eq!(line["connection"], 8);
        assert_eq!(line["stream"], 2);
        assert_eq!(line["level"], "DEBUG");
        assert_eq!(line["message"], "stream failed");
    }
}
