//! The fields of a peer that a command sets. Whether they are right is for the configuration to say.

use clap::Args;
use toml_edit::{Array, Item, Table, value};

/// Fields of a peer.
#[derive(Debug, Default, Args)]
pub(crate) struct PeerFields {
    /// Name of the peer here
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) called: Option<String>,
    /// Prefixes behind the peer
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    pub(crate) allowed_ips: Option<Vec<String>>,
    /// Addresses at which it is dialled; without any, it dials this node
    #[arg(long, value_name = "MULTIADDR,...", value_delimiter = ',')]
    pub(crate) addresses: Option<Vec<String>>,
    /// Most bytes per second that are sent to it; 0 for no limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) rate: Option<u32>,
    /// When it is connected: `always` or `on-demand`
    #[arg(long, value_name = "WHEN")]
    pub(crate) connect: Option<String>,
    /// Whether its networks go before networks of the host's own
    #[arg(long = "override", value_name = "BOOL")]
    pub(crate) overrides: Option<bool>,
    /// Whether the node has the peer; one that is not enabled is neither dialled nor accepted nor routed to
    #[arg(long, value_name = "BOOL")]
    pub(crate) enabled: Option<bool>,
    /// A line for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

impl PeerFields {
    /// Returns the name that it gets.
    pub(super) fn name(&self) -> Option<&str> {
        self.called.as_deref().filter(|name| !name.is_empty())
    }

    /// Returns whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            called,
            allowed_ips,
            addresses,
            rate,
            connect,
            overrides,
            enabled,
            comment,
        } = self;
        called.is_none()
            && allowed_ips.is_none()
            && addresses.is_none()
            && rate.is_none()
            && connect.is_none()
            && overrides.is_none()
            && enabled.is_none()
            && comment.is_none()
    }

    /// Writes what is said into the table of a peer; what is empty is taken away.
    pub(super) fn put(&self, table: &mut Table) {
        put(table, "name", text(self.called.as_deref()));
        put(table, "addresses", list(self.addresses.as_deref()));
        put(table, "allowed_ips", list(self.allowed_ips.as_deref()));
        put(
            table,
            "rate",
            self.rate.map(|rate| (rate > 0).then(|| value(i64::from(rate)))),
        );
        put(table, "connect", text(self.connect.as_deref()));
        put(
            table,
            "override",
            self.overrides.map(|overrides| Some(value(overrides))),
        );
        put(table, "enabled", self.enabled.map(|enabled| Some(value(enabled))));
        put(table, "comment", text(self.comment.as_deref()));
    }
}

fn text(text: Option<&str>) -> Option<Option<Item>> {
    text.map(|text| (!text.is_empty()).then(|| value(text)))
}

fn list(texts: Option<&[String]>) -> Option<Option<Item>> {
    let texts = texts?.iter().filter(|text| !text.is_empty());
    let array: Array = texts.map(String::as_str).collect();
    Some((!array.is_empty()).then(|| value(array)))
}

/// Puts what a field becomes in its place: nothing where nothing is said, and none where it is taken away.
fn put(table: &mut Table, name: &str, new: Option<Option<Item>>) {
    match new {
        Some(Some(item)) => {
            table.insert(name, item);
        }
        Some(None) => {
            table.remove(name);
        }
        None => {}
    }
}
