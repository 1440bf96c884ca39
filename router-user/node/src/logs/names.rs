//! Names of peers in the log: a value `peer` that is the id of a peer with a name is written with the name before it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use crate::config::Config;

/// The value that is the id of a peer.
pub(super) const PEER: &str = "peer";

/// The names of peers by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerNames(Arc<ArcSwap<HashMap<String, String>>>);

impl PeerNames {
    /// Knows the peers of these configurations from now on; what a later one says counts.
    pub(super) fn learn(&self, configs: &[&Config]) {
        let peers = configs.iter().flat_map(|config| config.peers());
        let named = peers.filter_map(|peer| Some((peer.id().to_string(), peer.name()?.to_owned())));
        self.0.store(Arc::new(named.collect()));
    }

    /// Returns the name of the peer with this id.
    pub(super) fn of(&self, id: &str) -> Option<String> {
        self.0.load().get(id).cloned()
    }
}

/// Values as text, as the subscriber writes them otherwise, but for the names of peers.
pub(super) struct NamedFields(pub(super) PeerNames);

impl<'writer> FormatFields<'writer> for NamedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = NamingVisitor {
            inner: DefaultVisitor::new(writer, true),
            names: &self.0,
        };
        fields.record(&mut visitor);
        visitor.inner.finish()
    }
}

struct NamingVisitor<'a, 'writer> {
    inner: DefaultVisitor<'writer>,
    names: &'a PeerNames,
}

impl Visit for NamingVisitor<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.inner.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.inner.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == PEER {
            let id = format!("{value:?}");
            if let Some(name) = self.names.of(&id) {
                return self.inner.record_debug(field, &format_args!("{name} ({id})"));
            }
        }
        self.inner.record_debug(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logs::test_lines::Lines;

    const NAMED: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    const OTHER: &str = "12D3KooWMYMWphmct4pLLpq7wH8UxrcpeE7J6GUWn6vkdFhRbod7";

    fn config(peers: &str) -> Config {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n{peers}");
        Config::parse(&text, Path::new("sr.toml")).unwrap()
    }

    #[test]
    fn a_peer_is_called_by_its_name_in_events_and_spans_while_it_has_one() {
        let lines = Lines::default();
        let (writer, names) = (lines.clone(), PeerNames::default());
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(NamedFields(names.clone()));
        let named = config(&format!(
            "[[peer]]\nid = '{NAMED}'\nname = 'berlin'\nallowed_ips = ['10.42.0.2/32']\n\
             [[peer]]\nid = '{OTHER}'\nallowed_ips = ['10.42.0.3/32']\n"
        ));
        let renamed = config(&format!(
            "[[peer]]\nid = '{NAMED}'\nname = 'paris'\nallowed_ips = ['10.42.0.2/32']\n"
        ));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(peer = %NAMED, n = 7, "nobody knows");
            names.learn(&[&named]);
            tracing::info!(peer = %NAMED, n = 7, error = "broken", "known");
            tracing::info!(peer = %OTHER, other = %NAMED, "nameless");
            let _span = tracing::info_span!("stream", peer = %NAMED, stream = 2).entered();
            names.learn(&[&named, &renamed]);
            tracing::info!("in a span");
            tracing::info!(peer = %NAMED, "the later name");
        });

        let span = format!("stream{{peer=berlin ({NAMED}) stream=2}}");
        assert_eq!(
            lines.text().lines().map(str::trim).collect::<Vec<_>>(),
            [
                format!("INFO nobody knows peer={NAMED} n=7"),
                format!("INFO known peer=berlin ({NAMED}) n=7 error=\"broken\""),
                format!("INFO nameless peer={OTHER} other={NAMED}"),
                format!("INFO {span}: in a span"),
                format!("INFO {span}: the later name peer=paris ({NAMED})"),
            ]
        );
    }
}
