//! What a node sends to a collector of OpenTelemetry, which runs in the node's namespace.

#[path = "../../src/otlp/message.rs"]
#[expect(dead_code, reason = "what the node alone needs")]
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::metrics::get;
use crate::support::{NODE, machine};
use message::{Data, Metric, MetricsRequest, Number, Resource, SpansRequest, Value};
use xtask::lab::process::until;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir};

const COLLECTOR: &str = "127.0.0.1:4318";
const TRACES: &str = "/v1/traces";
const METRICS: &str = "127.0.0.1:9464";
const LIMIT: Duration = Duration::from_secs(60);
/// More than a node sends in a test.
const MAX_REQUESTS: usize = 1000;
const HEADER: &str = "authorization: Bearer 0123";

/// A request: its path, and its message.
type Received = (String, Vec<u8>);

#[test]
fn a_collector_gets_what_the_metrics_page_has_and_what_took_time() {
    let _machine = machine::shared();
    let mut pair = pair("https").unwrap();
    let certificate = pair.a.node.config().with_file_name("ca.pem");
    let requests = collector(&pair.a.host, &certificate).unwrap();
    pair.start_nodes().unwrap();
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    // The page and an export of a moment later differ in what goes on, and in nothing else.
    let (_, page) = get(&pair.a.host, METRICS, METRICS, "/metrics").unwrap();
    let mut traces = Vec::new();
    let (resource, metrics) = metrics_that_know_the_peer(&requests, &mut traces).unwrap();
    pair.a.node.ask::<serde_json::Value>(&["reload"]).unwrap();
    assert!(pair.b.node.stop(Signal::SIGTERM).unwrap().success());
    until("the peer is missed", LIMIT, || {
        Ok(pair.a.node.log()?.contains("cannot reach a peer").then_some(()))
    })
    .unwrap();
    let begun = Instant::now();
    assert!(pair.a.node.stop(Signal::SIGTERM).unwrap().success());
    assert!(begun.elapsed() < LIMIT);

    let attribute = |key: &str| value_of(&resource, key);
    assert_eq!(attribute("service.name").as_deref(), Some("stream-router"));
    assert_eq!(
        attribute("service.instance.id").as_deref(),
        Some(pair.a.node.peer_id())
    );
    assert_eq!(attribute("deployment.environment.name").as_deref(), Some("test"));
    let sent: BTreeSet<_> = metrics.keys().cloned().collect();
    let served = families(&page);
    assert_eq!(
        sent.difference(&served).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    // Errors of connections, which may not have happened, are a family only then.
    let missing: Vec<_> = served
        .difference(&sent)
        .filter(|name| !name.starts_with("libp2p_"))
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
    let peer = [("peer", pair.b.node.peer_id())];
    assert_eq!(number(&metrics["stream_router_peer_connected"], &peer), Some(1.0));
    let limit = page
        .lines()
        .find_map(|line| line.strip_prefix("stream_router_flows_limit "));
    assert_eq!(
        number(&metrics["stream_router_flows_limit"], &[]),
        limit.and_then(|value| value.parse().ok())
    );
    let Some(Data::Sum(sum)) = &metrics["stream_router_peer_frames"].data else {
        panic!("no sum");
    };
    assert!(sum.is_monotonic && sum.temporality == message::CUMULATIVE && sum.points.len() == 2);

    traces.extend(
        requests
            .try_iter()
            .filter(|(path, _)| path == TRACES)
            .map(|(_, body)| body),
    );
    let spans = spans_of(&traces);
    let of = |name: &str| -> Vec<_> {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert!(!found.is_empty(), "{name} in {spans:?}");
        found
    };
    let start = of("node.start")[0];
    assert!(start.end_ns > start.start_ns && start.status.is_none());
    assert!(of("hook.run")[0].status.is_some(), "/bin/false fails");
    assert!(!of("config.reload").is_empty());
    let (up, failed): (Vec<_>, Vec<_>) = of("peer.connect")
        .into_iter()
        .partition(|span| span.status.is_none());
    assert!(!up.is_empty() && !failed.is_empty(), "{spans:?}");
    let peer = message::KeyValue::text("stream_router.peer.id", pair.b.node.peer_id());
    for span in failed {
        let why = &span.status.as_ref().unwrap().message;
        assert!(!why.is_empty() && span.attributes.contains(&peer), "{span:?}");
    }
}

#[test]
fn a_node_works_and_stops_while_its_collector_hangs_and_says_so_once() {
    let _machine = machine::shared();
    let mut pair = pair("http").unwrap();
    // It takes connections, and never answers.
    let hanging = pair.a.host.bind(|| TcpListener::bind(COLLECTOR)).unwrap();
    pair.start_nodes().unwrap();
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    until("the node has given up once", LIMIT, || {
        Ok(pair
            .a
            .node
            .log()?
            .contains("metrics and spans are not sent")
            .then_some(()))
    })
    .unwrap();

    let begun = Instant::now();
    assert!(pair.a.node.stop(Signal::SIGTERM).unwrap().success());

    // Two seconds for the collector; more for what else ends.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let log = pair.a.node.log().unwrap();
    assert_eq!(log.matches("metrics and spans are not sent").count(), 1, "{log}");
    drop(hanging);
}

fn pair(scheme: &str) -> Result<Pair> {
    let directory = ScratchDir::unique("otlp")?;
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory)?;
    let headers = pair.a.node.config().with_file_name("headers");
    fs::write(&headers, format!("{HEADER}\n"))?;
    fs::set_permissions(&headers, Permissions::from_mode(0o600))?;
    let ca_file = match scheme {
        "https" => format!("ca_file = {:?}\n", pair.a.node.config().with_file_name("ca.pem")),
        _ => String::new(),
    };
    pair.a.config.sections += &format!(
        "\n[metrics]\nlisten = \"{METRICS}\"\n[hooks]\nup = [\"/bin/false\"]\n\
         [otlp]\nendpoint = \"{scheme}://{COLLECTOR}\"\ninterval = \"1s\"\nheaders_file = \"{}\"\n\
         attributes = [\"deployment.environment.name=test\"]\n{ca_file}",
        headers.display()
    );
    pair.a.node.configure(&pair.a.config)?;
    Ok(pair)
}

/// Takes every request until the test ends, by TLS with a certificate of its own, which is written to a file.
fn collector(host: &Namespace, certificate: &Path) -> Result<Receiver<Received>> {
    let config = Arc::new(own_certificate(certificate)?);
    let listener = host.bind(|| TcpListener::bind(COLLECTOR))?;
    let (sender, requests) = sync_channel(MAX_REQUESTS);
    std::thread::spawn(move || {
        // It ends with the test program; nobody listens to it after its test.
        while let Ok((stream, _)) = listener.accept()
            && let Ok(connection) = ServerConnection::new(config.clone())
            && let Ok(received) = receive(StreamOwned::new(connection, stream))
            && sender.send(received).is_ok()
        {}
    });
    Ok(requests)
}

fn own_certificate(file: &Path) -> Result<ServerConfig> {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let pem = STANDARD.encode(own.cert.der());
    fs::write(
        file,
        format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n"),
    )?;
    let key = PrivateKeyDer::try_from(own.key_pair.serialize_der());
    let key = key.map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth();
    Ok(config.with_single_cert(vec![own.cert.der().clone()], key)?)
}

fn receive(stream: impl Read + Write) -> Result<Received> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("no length")?.parse()?];
    reader.read_exact(&mut body)?;
    let stream = reader.get_mut();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    stream.flush()?;
    ensure!(head.contains(HEADER), "{head}");
    let path = head.split(' ').nth(1).context("no path")?;
    Ok((path.to_owned(), body))
}

/// The first metrics in which the peer is connected; what comes before of traces is kept.
fn metrics_that_know_the_peer(
    requests: &Receiver<Received>,
    traces: &mut Vec<Vec<u8>>,
) -> Result<(Resource, BTreeMap<String, Metric>)> {
    let end = Instant::now() + LIMIT;
    loop {
        let (path, body) = requests.recv_timeout(end.saturating_duration_since(Instant::now()))?;
        if path == TRACES {
            traces.push(body);
            continue;
        }
        let mut sent = MetricsRequest::decode(&*body)?.resource_metrics;
        let sent = sent.pop().context("no resource")?;
        let scopes = sent.scope_metrics.into_iter();
        let metrics: BTreeMap<_, _> = scopes
            .flat_map(|scope| scope.metrics)
            .map(|metric| (metric.name.clone(), metric))
            .collect();
        if number(&metrics["stream_router_peer_connected"], &[]) == Some(1.0) {
            return Ok((sent.resource.context("no resource")?, metrics));
        }
    }
}

fn spans_of(traces: &[Vec<u8>]) -> Vec<message::Span> {
    let decode = |body: &Vec<u8>| SpansRequest::decode(body.as_slice()).expect("spans");
    let spans = traces.iter().flat_map(|body| decode(body).resource_spans);
    spans
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

fn value_of(resource: &Resource, key: &str) -> Option<String> {
    let pair = resource.attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
    }
}

/// The number of the point that has these attributes and perhaps others.
fn number(metric: &Metric, attributes: &[(&str, &str)]) -> Option<f64> {
    let Some(Data::Gauge(gauge)) = &metric.data else {
        return None;
    };
    let wanted: Vec<_> = attributes
        .iter()
        .map(|(key, value)| message::KeyValue::text(*key, *value))
        .collect();
    let mut points = gauge.points.iter();
    let point = points.find(|point| wanted.iter().all(|pair| point.attributes.contains(pair)))?;
    Some(match point.value? {
        Number::Float(value) => value,
        Number::Integer(value) => value as f64,
    })
}

/// The families of a page that have samples, as collectors know them.
fn families(page: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut named = String::new();
    for line in page.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or_default();
            named = name.to_owned() + if kind == "info" { "_info" } else { "" };
        } else if !line.starts_with('#') {
            families.insert(named.clone());
        }
    }
    families
}
