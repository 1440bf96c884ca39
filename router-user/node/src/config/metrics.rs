//! The `[metrics]` section.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::node::optional_path;
use super::problem::{Located, Problems};
use super::reader::Table;

const LISTEN_ALLOWED: &str = "an address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"";

const HOSTS_ALLOWED: &str = "names without port, such as \"node1.example.net\", each once";

/// Longest host name (RFC 1035).
const MAX_HOST_LEN: usize = 253;

/// Where metrics, health and the status page are served, if anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSection {
    listen: Option<SocketAddr>,
    hosts: Vec<String>,
    token_file: Option<PathBuf>,
}

impl MetricsSection {
    /// Returns the address to listen on; without one nothing is served.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Returns the names that requests may be addressed to, beside addresses and `localhost`; in lower case.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Returns the file with the token by which clients may change something; without one nobody may.
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// Returns the section with the token file of another one.
    pub(super) fn with_token_file_of(&self, other: &Self) -> Self {
        Self {
            token_file: other.token_file.clone(),
            ..self.clone()
        }
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let listen = table.string("listen", LISTEN_ALLOWED, problems);
        let listen = listen.and_then(|found| socket_address(&found, problems));
        let hosts = hosts(&mut table, problems);
        let token_file = optional_path(&mut table, "token_file", problems);
        table.finish(problems);
        Self {
            listen,
            hosts,
            token_file,
        }
    }
}

fn socket_address(found: &Located<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let Located { place, value } = found;
    let wrong = match value.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => "port 0 is no port that can be asked at".to_owned(),
        Ok(address) if address.ip().is_multicast() => format!("{} is a multicast address", address.ip()),
        Ok(address) => return Some(address),
        Err(_no_address) => format!("{value:?} is not an IP address with a port"),
    };
    problems.add(place, wrong, LISTEN_ALLOWED);
    None
}

fn hosts(table: &mut Table<'_>, problems: &mut Problems) -> Vec<String> {
    let mut hosts = Vec::new();
    for Located { place, value } in table
        .strings("hosts", HOSTS_ALLOWED, problems)
        .unwrap_or_default()
    {
        let host = value.to_ascii_lowercase();
        if !is_host_name(&host) {
            problems.add(
                &place,
                format!("{value:?} is not the name of a host"),
                HOSTS_ALLOWED,
            );
        } else if hosts.contains(&host) {
            problems.add(&place, format!("{value} is listed twice"), HOSTS_ALLOWED);
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_HOST_LEN && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn parse(section: &str) -> Result<Config, String> {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n{section}\n");
        Config::parse(&text, Path::new("sr.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_served_unless_an_address_is_given() {
        assert_eq!(parse("").unwrap().metrics().listen(), None);
        assert_eq!(parse("[metrics]").unwrap().metrics().listen(), None);
    }

    #[test]
    fn addresses_of_both_families_and_names_are_taken() {
        let config =
            parse("[metrics]\nlisten = '[::1]:9464'\nhosts = ['Node1.example.net', 'node2']").unwrap();

        assert_eq!(config.metrics().listen(), Some("[::1]:9464".parse().unwrap()));
        assert_eq!(config.metrics().hosts(), ["node1.example.net", "node2"]);
    }

    #[test]
    fn what_is_no_address_or_no_name_is_a_problem_with_what_is_allowed() {
        const LISTEN: &str = "(allowed: an address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\")";
        const HOSTS: &str = "(allowed: names without port, such as \"node1.example.net\", each once)";
        for (line, said) in [
            (
                "listen = '127.0.0.1'",
                format!("metrics.listen: \"127.0.0.1\" is not an IP address with a port {LISTEN}"),
            ),
            (
                "listen = 'localhost:9464'",
                format!("metrics.listen: \"localhost:9464\" is not an IP address with a port {LISTEN}"),
            ),
            (
                "listen = '127.0.0.1:0'",
                format!("metrics.listen: port 0 is no port that can be asked at {LISTEN}"),
            ),
            (
                "listen = '224.0.0.1:9464'",
                format!("metrics.listen: 224.0.0.1 is a multicast address {LISTEN}"),
            ),
            (
                "listen = 9464",
                format!("metrics.listen: expected a string, found an integer {LISTEN}"),
            ),
            (
                "hosts = ['node1:9464']",
                format!("metrics.hosts[0]: \"node1:9464\" is not the name of a host {HOSTS}"),
            ),
            (
                "hosts = ['a', 'A']",
                format!("metrics.hosts[1]: A is listed twice {HOSTS}"),
            ),
            (
                "token_file = 'token'",
                "metrics.token_file: \"token\" is not the absolute path of a file (allowed: an absolute path)".to_owned(),
            ),
            (
                "port = 1",
                "metrics.port: unknown field (allowed: listen, hosts, token_file)".to_owned(),
            ),
        ] {
            assert_eq!(
                parse(&format!("[metrics]\n{line}")).unwrap_err(),
                format!("sr.toml:4: {said}")
            );
        }
    }
}
