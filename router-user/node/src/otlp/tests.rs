//! Exports to a collector that a test plays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::message::{AnyValue, Data, PartialSuccess, Value};
use super::*;
use crate::config::Config;
use xtask::lab::ScratchDir;

/// More than a test makes.
const MAX_REQUESTS: usize = 16;
const TEXT: &str = "# HELP a A.\n# TYPE a counter\na_total{k=\"v\"} 7\n# EOF\n";

/// A request as it came.
struct Request {
    head: String,
    body: Vec<u8>,
}

/// Answers each connection with what `answer` says, and hands the requests over.
fn collector(answers: Vec<Vec<u8>>) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    let (sender, requests) = sync_channel(MAX_REQUESTS);
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let request = read_request(&stream);
            // The test may have seen enough.
            let _ = (&stream).write_all(&answer);
            let _ = sender.send(request);
        }
    });
    (url, requests)
}

fn read_request(stream: impl Read) -> Request {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    Request { head, body }
}

fn answer(status: &str, message: &Response) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    answer
}

fn outlet(url: &str) -> Outlet {
    outlet_with(url, "")
}

fn outlet_with(url: &str, more: &str) -> Outlet {
    let text = format!(
        "[device]\naddresses = ['10.42.0.1/24']\n[otlp]\nendpoint = '{url}'\nattributes = ['a=b']\n{more}\n"
    );
    let section = Config::parse(&text, Path::new("sr.toml")).unwrap().otlp().clone();
    let identity = Identity {
        peer_id: "12D3",
        name: Some("berlin"),
    };
    let (spans, ended) = Spans::channel(MAX_SPANS);
    Outlet {
        resource: resource(&section, &identity),
        tls: Tls::of(&section).unwrap(),
        section,
        start_ns: 5,
        read: Box::new(|| Ok(TEXT.to_owned())),
        spans,
        ended,
        waiting: Vec::new(),
        is_failing: false,
    }
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::Text(text)) => text,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn an_export_has_the_metrics_and_then_the_spans_of_the_node() {
    let ok = answer("200 OK", &Response::default());
    let (url, requests) = collector(vec![ok.clone(), ok]);
    let mut outlet = outlet(&url);
    let mut span = outlet.spans.begin("hook.run");
    span.set("key", "value");
    span.fail("why");
    drop(span);

    outlet.export(SEND_LIMIT).await;

    assert!(!outlet.is_failing && outlet.waiting.is_empty());
    let metrics = requests.recv().unwrap();
    assert!(
        metrics.head.starts_with("POST /base/v1/metrics HTTP/1.1\r\n"),
        "{}",
        metrics.head
    );
    assert!(
        metrics.head.contains("content-type: application/x-protobuf\r\n"),
        "{}",
        metrics.head
    );
    let metrics = MetricsRequest::decode(&*metrics.body)
        .unwrap()
        .resource_metrics
        .remove(0);
    let resource: Vec<_> = metrics.resource.unwrap().attributes;
    let resource: Vec<_> = resource
        .iter()
        .map(|pair| (pair.key.as_str(), text(&pair.value)))
        .collect();
    assert_eq!(resource[0], ("service.name", "stream-router".to_owned()));
    assert_eq!(resource[1], ("service.instance.id", "12D3".to_owned()));
    assert!(
        resource.contains(&("stream_router.node.name", "berlin".to_owned())),
        "{resource:?}"
    );
    assert!(resource.contains(&("a", "b".to_owned())), "{resource:?}");
    let metric = metrics.scope_metrics[0].metrics[0].clone();
    let Some(Data::Sum(sum)) = metric.data else {
        panic!("{metric:?}");
    };
    assert_eq!((metric.name.as_str(), sum.points[0].start_ns), ("a", 5));
    let traces = requests.recv().unwrap();
    assert!(
        traces.head.starts_with("POST /base/v1/traces HTTP/1.1\r\n"),
        "{}",
        traces.head
    );
    let traces = SpansRequest::decode(&*traces.body)
        .unwrap()
        .resource_spans
        .remove(0);
    let span = traces.scope_spans[0].spans[0].clone();
    assert_eq!(
        (span.name.as_str(), span.trace_id.len(), span.span_id.len()),
        ("hook.run", 16, 8)
    );
    assert_eq!(span.attributes, [KeyValue::text("key", "value")]);
    assert_eq!(span.status.unwrap().message, "why");
    assert!(span.end_ns >= span.start_ns && span.start_ns > 0);
}

#[tokio::test]
async fn spans_wait_for_a_collector_that_is_busy_and_not_for_one_that_refuses_them() {
    let ok = || answer("200 OK", &Response::default());
    let busy = answer("503 Busy", &Response::default());
    let refusal = answer("400 No", &Response::default());
    let (url, _requests) = collector(vec![ok(), busy, ok(), refusal]);
    let mut outlet = outlet(&url);
    drop(outlet.spans.begin("a"));

    outlet.export(SEND_LIMIT).await;
    assert_eq!((outlet.waiting.len(), outlet.is_failing), (1, true));
    outlet.export(SEND_LIMIT).await;
    assert_eq!((outlet.waiting.len(), outlet.is_failing), (0, true));
}

#[tokio::test]
async fn what_a_hostile_collector_can_cost_is_bounded() {
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
    endless.extend(vec![0; 1 << 20]);
    let mut long_head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    long_head.extend(vec![b'a'; 1 << 20]);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100)).into_bytes();
    for hostile in [endless, long_head, many, b"no HTTP\r\n\r\n".to_vec(), Vec::new()] {
        let (url, _requests) = collector(vec![hostile]);
        let mut outlet = outlet(&url);
        let begun = Instant::now();
        outlet.export(SEND_LIMIT).await;
        assert!(outlet.is_failing && begun.elapsed() < SEND_LIMIT);
    }
    // One that takes the connection and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut outlet = outlet(&format!("http://{}", listener.local_addr().unwrap()));
    outlet.export(Duration::from_millis(50)).await;
    assert!(outlet.is_failing);
}

#[tokio::test]
async fn no_more_spans_wait_than_may_while_a_collector_is_gone() {
    let mut outlet = outlet("http://127.0.0.1:1");
    for _ in 0..3 {
        for _ in 0..MAX_SPANS {
            drop(outlet.spans.begin("a"));
        }
        outlet.export(SEND_LIMIT).await;
    }
    assert!(outlet.is_failing);
    assert!(outlet.waiting.len() <= MAX_SPANS && outlet.ended.len() <= MAX_SPANS);
}

#[tokio::test]
async fn what_a_collector_rejects_is_no_failure() {
    let partial = Response {
        partial_success: Some(PartialSuccess {
            n_rejected: 3,
            error: "why".to_owned(),
        }),
    };
    let (url, _requests) = collector(vec![answer("200 OK", &partial)]);
    let mut outlet = outlet(&url);
    outlet.export(SEND_LIMIT).await;
    assert!(!outlet.is_failing);
}

#[test]
fn many_points_go_with_several_requests_and_none_is_lost() {
    let mut text = String::from("# TYPE a counter\na_total 0\n# TYPE b gauge\n");
    let n_points = 2 * MAX_POINTS + 10;
    for n in 0..n_points {
        text += &format!("b{{n=\"{n}\"}} {n}\n");
    }
    let times = Times {
        start_ns: 1,
        now_ns: 2,
    };

    let portions = portions(families::metrics(&text, times).unwrap());

    let n_points_of = |portion: &Vec<Metric>| portion.iter().map(Metric::n_points).sum::<usize>();
    assert_eq!(
        portions.iter().map(n_points_of).collect::<Vec<_>>(),
        [MAX_POINTS, MAX_POINTS, 11]
    );
    let mut values: Vec<_> = portions.into_iter().flatten().collect();
    let Some(Data::Gauge(last)) = values.pop().unwrap().data else {
        panic!("no gauge");
    };
    let last = last.points.last().unwrap();
    assert_eq!(last.value, Some(message::Number::Integer(n_points as i64 - 1)));
}

/// A message of each kind with every field that is used, as the classes that OpenTelemetry publishes for Python write it.
const METRICS: &str = "0ac8010a130a080a016b12030a01760a070a016e1202180712b0010a060a0173120131121f0a01671201471a01732a140a12\
     19020000000000000021000000000000f83f12300a01633a2b0a251101000000000000001902000000000000003109000000\
     000000003a080a016b12030a01761002180112530a01684a4e0a4a1101000000000000001902000000000000002103000000\
     000000002900000000000012403210010000000000000002000000000000003a08000000000000e03f4a080a016b12030a01\
     761002";
const TRACES: &str = "0a590a0a0a080a016b12030a0176124b0a030a017312440a10000102030405060708090a0b0c0d0e0f120800010203040506\
     072a016e30013901000000000000004102000000000000004a080a016b12030a01767a051201651802";
const PARTIAL_SUCCESS: &str = "0a050803120165";

#[test]
fn messages_are_those_that_open_telemetry_defines() {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = (0..hex.len()).step_by(2);
        digits
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    // A field that is not known here, or has another number or type, would be missing.
    let again = MetricsRequest::decode(&*bytes(METRICS)).unwrap().encode_to_vec();
    assert_eq!(again, bytes(METRICS));
    let again = SpansRequest::decode(&*bytes(TRACES)).unwrap().encode_to_vec();
    assert_eq!(again, bytes(TRACES));
    let again = Response::decode(&*bytes(PARTIAL_SUCCESS))
        .unwrap()
        .encode_to_vec();
    assert_eq!(again, bytes(PARTIAL_SUCCESS));
}

/// A collector over TLS with a certificate of its own for 127.0.0.1, which is written to `file`.
fn secret_collector(file: &Path) -> (String, Receiver<Request>) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let pem = STANDARD.encode(own.cert.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    std::fs::write(file, pem).unwrap();
    let key = PrivateKeyDer::try_from(own.key_pair.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (sender, requests) = sync_channel(MAX_REQUESTS);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            // Whoever does not trust the certificate sends nothing.
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                continue;
            }
            let request = read_request(&mut stream);
            let _ = stream.write_all(&answer("200 OK", &Response::default()));
            let _ = sender.send(request);
        }
    });
    (url, requests)
}

#[tokio::test]
async fn a_collector_over_tls_has_to_show_a_certificate_of_a_known_authority() {
    let directory = ScratchDir::unique("otlp-tls").unwrap();
    let [right, other] = ["right.pem", "other.pem"].map(|name| directory.path().join(name));
    let (url, requests) = secret_collector(&right);
    let _other = secret_collector(&other);
    let with = |file: &Path| outlet_with(&url, &format!("ca_file = {file:?}"));

    let mut trusting = with(&right);
    trusting.export(SEND_LIMIT).await;
    assert!(!trusting.is_failing);
    let request = requests.recv().unwrap();
    assert!(
        request.head.starts_with("POST /v1/metrics HTTP/1.1\r\n"),
        "{}",
        request.head
    );

    let mut wary = with(&other);
    wary.export(SEND_LIMIT).await;
    assert!(wary.is_failing);
    let refused = wary.send_metrics().await.unwrap_err();
    let why = stream_router_engine::causes::with_sources(&refused);
    assert!(
        why.contains("the one that is meant") && why.contains("certificate"),
        "{why}"
    );
    assert!(requests.try_recv().is_err());
}

#[test]
fn what_holds_no_certificates_is_refused() {
    let directory = ScratchDir::unique("otlp-ca").unwrap();
    let file = directory.path().join("ca.pem");
    let tried = |path: &Path| {
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[otlp]\nendpoint = 'https://c'\nca_file = {path:?}\n"
        );
        let refused = try_authorities(Config::parse(&text, Path::new("sr.toml")).unwrap().otlp());
        refused.unwrap_err()
    };
    assert!(matches!(tried(&file), TlsError::Read { .. }));
    for text in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, text).unwrap();
        assert!(matches!(tried(&file), TlsError::Malformed { .. }), "{text}");
    }
}
