//! The `[otlp]` section.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;

use super::node::optional_path;
use super::problem::{Located, Problems};
use super::reader::Table;
use super::transport::duration;

/// Whether this program was built with what the section needs. Tests read the section in either case.
const IS_BUILT: bool = cfg!(any(feature = "otlp", test));

/// Where OpenTelemetry has collectors listen for OTLP over HTTP.
const DEFAULT_PORT: u16 = 4318;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const INTERVAL_ALLOWED: &str = "a duration from \"1s\" to \"1h\", such as \"60s\"";

const ENDPOINT_ALLOWED: &str =
    "http:// or https://, a host, and perhaps a port and a path, such as \"http://127.0.0.1:4318\"";

const ATTRIBUTES_ALLOWED: &str = "KEY=VALUE, each key once, such as \"deployment.environment.name=production\", at most 32 of at most 256 bytes";
const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_LEN: usize = 256;

/// What the node says of itself, which nobody else is to say.
const OWN_ATTRIBUTES: [&str; 4] = [
    "service.instance.id",
    "service.version",
    "stream_router.node.name",
    "process.pid",
];

/// Where metrics and spans are sent, if anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSection {
    endpoint: Option<OtlpEndpoint>,
    interval: Duration,
    headers_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    attributes: Vec<(String, String)>,
}

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint {
    is_encrypted: bool,
    host: String,
    port: u16,
    path: String,
}

impl OtlpEndpoint {
    /// Returns whether it is spoken to by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns the name or address to connect to, one of IPv6 without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host as requests name it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns what stands before the path of each kind of data; it does not end with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl OtlpSection {
    /// Returns where to send to; without it nothing is sent.
    pub fn endpoint(&self) -> Option<&OtlpEndpoint> {
        self.endpoint.as_ref()
    }

    /// Returns the time from one export to the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Returns the file with headers for each request.
    pub fn headers_file(&self) -> Option<&Path> {
        self.headers_file.as_deref()
    }

    /// Returns the file with the authorities whose certificates count, in place of the system's.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Returns what the operator says of the node, by key.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let endpoint = table.string("endpoint", ENDPOINT_ALLOWED, problems);
        if let (Some(found), false) = (&endpoint, IS_BUILT) {
            problems.add(
                &found.place,
                "this program was built without OTLP",
                "no [otlp] section, or a program built with `--features otlp`",
            );
        }
        let endpoint = endpoint.and_then(|found| endpoint_of(&found, problems));
        let interval = duration(
            &mut table,
            "interval",
            MIN_INTERVAL..=MAX_INTERVAL,
            INTERVAL_ALLOWED,
            problems,
        );
        let headers_file = optional_path(&mut table, "headers_file", problems);
        let ca_place = table.absent("ca_file");
        let ca_file = optional_path(&mut table, "ca_file", problems);
        let is_encrypted = endpoint.as_ref().is_some_and(OtlpEndpoint::is_encrypted);
        if ca_file.is_some() && !is_encrypted {
            let problem = "there is no otlp.endpoint over https that it is for";
            problems.add(&ca_place, problem, "ca_file together with an endpoint over https");
        }
        let attributes = attributes(&mut table, problems);
        table.finish(problems);
        Self {
            endpoint,
            interval: interval.unwrap_or(DEFAULT_INTERVAL),
            headers_file,
            ca_file,
            attributes,
        }
    }
}

fn endpoint_of(found: &Located<String>, problems: &mut Problems) -> Option<OtlpEndpoint> {
    match parse_endpoint(&found.value) {
        Ok(endpoint) => Some(endpoint),
        Err(wrong) => {
            problems.add(
                &found.place,
                format!("{:?} {wrong}", found.value),
                ENDPOINT_ALLOWED,
            );
            None
        }
    }
}

fn parse_endpoint(text: &str) -> Result<OtlpEndpoint, &'static str> {
    let uri: Uri = text.parse().map_err(|_no_uri| "is no URL")?;
    let is_encrypted = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("is no URL of HTTP"),
    };
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a password, which belongs to otlp.headers_file");
    }
    if uri.query().is_some() {
        return Err("has a query");
    }
    let host = authority.host();
    if host.is_empty() {
        return Err("has no host");
    }
    // What stands behind the colon and is no port is not left out silently.
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => DEFAULT_PORT,
        _ => authority
            .port_u16()
            .filter(|port| *port != 0)
            .ok_or("has no port that can be asked at")?,
    };
    Ok(OtlpEndpoint {
        is_encrypted,
        host: host.to_owned(),
        port,
        path: uri.path().trim_end_matches('/').to_owned(),
    })
}

fn attributes(table: &mut Table<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    let place = table.absent("attributes");
    let found = table.strings("attributes", ATTRIBUTES_ALLOWED, problems);
    for Located { place, value } in found.unwrap_or_default() {
        let wrong = match value.split_once('=') {
            _ if value.len() > MAX_ATTRIBUTE_LEN => "is too long".to_owned(),
            None | Some(("", _)) => format!("{value:?} has no key"),
            Some((key, _)) if OWN_ATTRIBUTES.contains(&key) => {
                format!("{key} is what the node says of itself")
            }
            Some((key, _)) if attributes.iter().any(|(other, _)| other == key) => {
                format!("{key} is listed twice")
            }
            Some((key, value)) => {
                attributes.push((key.to_owned(), value.to_owned()));
                continue;
            }
        };
        problems.add(&place, wrong, ATTRIBUTES_ALLOWED);
    }
    if attributes.len() > MAX_ATTRIBUTES {
        problems.add(
            &place,
            format!("has {} elements", attributes.len()),
            ATTRIBUTES_ALLOWED,
        );
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(section: &str) -> Result<OtlpSection, String> {
        let text = format!("[device]\naddresses = ['10.42.0.1/24']\n[otlp]\n{section}\n");
        match Config::parse(&text, Path::new("sr.toml")) {
            Ok(config) => Ok(config.otlp().clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nothing_is_sent_unless_it_is_said_where() {
        let otlp = parse("interval = '5s'").unwrap();
        assert_eq!((otlp.endpoint(), otlp.interval()), (None, Duration::from_secs(5)));
        assert_eq!(parse("").unwrap().interval(), Duration::from_secs(60));
    }

    #[test]
    fn a_collector_has_a_host_and_perhaps_a_port_and_a_path() {
        for (text, host, authority, path) in [
            (
                "http://collector.example",
                "collector.example",
                "collector.example:4318",
                "",
            ),
            ("http://127.0.0.1:9/", "127.0.0.1", "127.0.0.1:9", ""),
            ("http://[::1]/otlp/", "::1", "[::1]:4318", "/otlp"),
            ("http://[fd42::1]:80/a/b", "fd42::1", "[fd42::1]:80", "/a/b"),
        ] {
            let otlp = parse(&format!("endpoint = '{text}'")).unwrap();
            let endpoint = otlp.endpoint().unwrap();
            assert_eq!(
                (endpoint.host(), endpoint.authority().as_str(), endpoint.path()),
                (host, authority, path)
            );
            assert!(!endpoint.is_encrypted());
        }
        let encrypted = parse("endpoint = 'https://c.example'\nca_file = '/c'").unwrap();
        let endpoint = encrypted.endpoint().unwrap();
        assert!(endpoint.is_encrypted());
        assert_eq!(endpoint.authority(), "c.example:4318");
        assert_eq!(encrypted.ca_file(), Some(Path::new("/c")));
    }

    #[test]
    fn what_cannot_be_sent_to_or_said_is_a_problem() {
        for (line, wrong) in [
            (
                "endpoint = '127.0.0.1:4318'",
                "otlp.endpoint: \"127.0.0.1:4318\" is no URL of HTTP",
            ),
            ("endpoint = 'a b'", "otlp.endpoint: \"a b\" is no URL"),
            (
                "endpoint = 'http://c'\nca_file = '/c'",
                "otlp.ca_file: there is no otlp.endpoint over https",
            ),
            ("ca_file = '/c'", "there is no otlp.endpoint over https"),
            (
                "endpoint = 'http://u:p@c'",
                "has a password, which belongs to otlp.headers_file",
            ),
            ("endpoint = 'http://c?a=b'", "has a query"),
            ("endpoint = 'http://c:0'", "has no port that can be asked at"),
            ("endpoint = 'http://c:99999'", "has no port that can be asked at"),
            ("interval = '1ms'", "otlp.interval: \"1ms\" is out of range"),
            (
                "headers_file = 'a'",
                "otlp.headers_file: \"a\" is not the absolute path of a file",
            ),
            ("attributes = ['a']", "otlp.attributes[0]: \"a\" has no key"),
            ("attributes = ['=a']", "otlp.attributes[0]: \"=a\" has no key"),
            (
                "attributes = ['a=b', 'a=c']",
                "otlp.attributes[1]: a is listed twice",
            ),
            (
                "attributes = ['process.pid=1']",
                "process.pid is what the node says of itself",
            ),
            ("token = 1", "otlp.token: unknown field"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(wrong), "{line}: {error}");
        }
        let many: Vec<_> = (0..=MAX_ATTRIBUTES).map(|n| format!("'k{n}=v'")).collect();
        let error = parse(&format!("attributes = [{}]", many.join(","))).unwrap_err();
        assert!(error.contains("otlp.attributes: has 33 elements"), "{error}");
        let long = "x".repeat(MAX_ATTRIBUTE_LEN);
        assert!(
            parse(&format!("attributes = ['k={long}']"))
                .unwrap_err()
                .contains("is too long")
        );
    }
}
