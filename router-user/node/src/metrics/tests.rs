mod access;
mod dist;
mod documentation;
mod lint;
mod network;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::Value;

use super::*;
use crate::control::tests::example::Example;
use crate::control::{CounterList, PeerList, Resource, Status, StreamList, WorkerList};
use lint::{Exported, lint};

/// Well above what an answer takes, well below what the server allows a slow client.
const LIMIT: Duration = Duration::from_secs(5);

/// What there is to show, with this state of the node.
fn sources(state: CheckState) -> MetricsSources {
    MetricsSources {
        source: Arc::new(Example),
        health: Arc::new(move || Health::new(vec![HealthCheck::new("node", state, "as the test says")])),
        access: Access::default(),
        reloads: None,
        max_flows: 4096,
        others: Arc::new(Registry::default()),
    }
}

fn serve(state: CheckState) -> MetricsServer {
    let hosts = ["node1.example".to_owned()];
    MetricsServer::start("127.0.0.1:0".parse().expect("an address"), &hosts, sources(state))
        .expect("it is served")
}

/// Sends a request and returns the head of the answer and its body.
fn send(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // A server that does not read a request to its end resets the connection behind its answer.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

fn request(address: SocketAddr, line: &str, headers: &str) -> (String, String) {
    send(
        address,
        &format!("{line} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n"),
    )
}

/// Gets a path as most clients do.
fn get(server: &MetricsServer, path: &str) -> (String, String) {
    let host = format!("host: {}\r\n", server.address());
    request(server.address(), &format!("GET {path}"), &host)
}

fn code(head: &str) -> &str {
    head.split(' ').nth(1).expect("a code")
}

/// Families of the example by name.
fn exported() -> std::collections::BTreeMap<String, Exported> {
    lint(&collect::open_metrics(&sources(CheckState::Ok)).expect("metrics"))
}

#[test]
fn metrics_follow_the_conventions_and_carry_what_the_source_says() {
    let server = serve(CheckState::Degraded);

    let headers = format!(
        "host: {}\r\naccept: application/openmetrics-text\r\n",
        server.address()
    );

    let (head, text) = request(server.address(), "GET /metrics", &headers);

    assert_eq!(code(&head), "200");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    lint(&text);
    for line in [
        "stream_router_build_info{version=\"1.2.3\"} 1",
        "stream_router_node_info{peer=\"12D3KooWExample\",name=\"berlin\",device=\"sr0\"} 1",
        "stream_router_gateway_info{interface=\"lan0\",mode=\"generic\",sink=\"AF_XDP, copy mode\"} 1",
        "stream_router_port_mapping_info{state=\"mapped\"} 1",
        "stream_router_mapped_ports 1",
        "stream_router_relay_reservations 2",
        "stream_router_relay_circuits 1",
        "stream_router_relay_transfer_bytes_total 4096",
        "# UNIT stream_router_uptime_seconds seconds",
        "stream_router_uptime_seconds 1.5",
        "stream_router_health_check{check=\"node\"} 0",
        "stream_router_flows 4",
        "stream_router_flows_limit 4096",
        "stream_router_events_total{origin=\"kernel\",reason=\"captured\"} 9",
        "stream_router_peers{state=\"connected\"} 1",
        "stream_router_peers{state=\"connecting\"} 0",
        "stream_router_peer_connected{peer=\"12D3KooWPeer\",name=\"paris\"} 1",
        "stream_router_peer_rtt_seconds{peer=\"12D3KooWPeer\",name=\"paris\"} 0.00025",
        "stream_router_peer_loss_ratio{peer=\"12D3KooWPeer\",name=\"paris\",uplink=\"wan0\"} 0.02",
        "stream_router_peer_frames_total{peer=\"12D3KooWPeer\",name=\"paris\",direction=\"tx\"} 1",
        "stream_router_peer_traffic_bytes_total{peer=\"12D3KooWPeer\",name=\"paris\",direction=\"rx\"} 4",
        "stream_router_workers{state=\"retired\"} 1",
        "stream_router_worker_fill_ratio{worker=\"0\"} 0.5",
        "stream_router_worker_drained_bytes_total{worker=\"0\"} 6",
        "stream_router_stream_queued_bytes{peer=\"12D3KooWPeer\",name=\"paris\",stream=\"1\"} 2",
        "stream_router_stream_marked_total{peer=\"12D3KooWPeer\",name=\"paris\",stream=\"1\"} 6",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn a_reader_that_names_no_format_gets_plain_text() {
    let server = serve(CheckState::Ok);

    let (head, text) = get(&server, "/metrics");

    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    assert!(
        text.contains("# TYPE stream_router_drops_total counter\n"),
        "{text}"
    );
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
}

#[test]
fn only_a_node_that_carries_nothing_is_unhealthy() {
    for (state, expected, word) in [
        (CheckState::Ok, "200", "ok"),
        (CheckState::Degraded, "200", "degraded"),
        (CheckState::Failing, "503", "failing"),
    ] {
        let (head, body) = get(&serve(state), "/health");

        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code(&head), &health["status"]),
            (expected, &word.into()),
            "{body}"
        );
        assert_eq!(health["checks"][0]["detail"], "as the test says");
    }
}

#[test]
fn json_is_as_on_the_control_socket_without_what_needs_its_permissions() {
    fn check<R: Resource + PartialEq + std::fmt::Debug>(server: &MetricsServer, expected: R) {
        let (head, body) = get(server, R::PATH);
        assert_eq!(code(&head), "200");
        assert_eq!(serde_json::from_str::<R>(&body).unwrap(), expected);
    }
    let server = serve(CheckState::Ok);

    check::<Status>(&server, Example.status());
    check::<PeerList>(&server, Example.peers());
    check::<WorkerList>(&server, Example.workers());
    check::<StreamList>(&server, Example.streams());
    check::<CounterList>(&server, Example.counters().unwrap());
    assert_eq!(code(&get(&server, "/v1/flows").0), "403");
    for path in ["/v1/routes", "/v1/capture", "/v1/nothing", "/metrics/"] {
        let (head, body) = get(&server, path);
        assert_eq!(code(&head), "404");
        assert!(
            body.contains("there are /, /metrics, /health, /v1/status, "),
            "{body}"
        );
    }
}

#[test]
fn what_is_only_read_takes_no_other_method() {
    let server = serve(CheckState::Ok);
    let headers = format!("host: {}\r\ncontent-length: 0\r\n", server.address());
    for line in [
        "PUT /v1/workers",
        "POST /v1/status",
        "DELETE /metrics",
        "PUT /v1/streams",
        "POST /",
    ] {
        let (head, body) = request(server.address(), line, &headers);

        assert_eq!(code(&head), "405", "{line}");
        assert!(head.to_lowercase().contains("\r\nallow: get"), "{head}");
        assert!(body.contains("takes no"), "{body}");
    }
    let (head, body) = get(&server, "/v1/peers?verbose=1");
    assert_eq!(code(&head), "400");
    assert!(body.contains("takes no parameters"), "{body}");
}

#[test]
fn a_request_for_a_name_of_somebody_else_is_refused() {
    let server = serve(CheckState::Ok);
    let get = |path: &str, headers: &str| request(server.address(), &format!("GET {path}"), headers);

    for host in [
        "127.0.0.1:9464",
        "[::1]:9464",
        "192.0.2.1",
        "localhost:9464",
        "LocalHost",
        "Node1.Example:80",
    ] {
        assert_eq!(
            code(&get("/metrics", &format!("host: {host}\r\n")).0),
            "200",
            "{host}"
        );
    }
    for host in [
        "evil.example:9464",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "user@evil.example",
        "",
    ] {
        for path in ["/", "/metrics", "/health", "/v1/peers", "/nothing"] {
            let (head, body) = get(path, &format!("host: {host}\r\n"));
            assert_eq!(code(&head), "403", "{host} {path}");
            assert!(body.contains("metrics.hosts"), "{body}");
        }
    }
    for headers in ["", "host: localhost\r\nhost: evil.example\r\n"] {
        assert_eq!(code(&get("/", headers).0), "400", "{headers}");
    }
}

#[test]
fn every_answer_tells_browsers_to_be_strict() {
    let server = serve(CheckState::Ok);
    for path in ["/", "/metrics", "/health", "/v1/peers", "/nothing"] {
        let (head, _) = get(&server, path);

        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(&format!("\r\n{header}")), "{path}: {head}");
        }
        assert!(!head.contains("access-control-allow"), "{path}: {head}");
    }
    let (head, page) = get(&server, "/");
    assert!(
        head.contains("\r\ncontent-security-policy: default-src 'none'; "),
        "{head}"
    );
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(page.starts_with("<!doctype html>"), "{page}");
}

#[test]
fn a_source_that_fails_is_an_error_and_not_an_empty_answer() {
    struct Broken;
    impl Source for Broken {
        fn status(&self) -> Status {
            Example.status()
        }
        fn peers(&self) -> PeerList {
            Example.peers()
        }
        fn traffic(&self) -> crate::control::TrafficTotals {
            Example.traffic()
        }
        fn flows(
            &self,
            query: &crate::control::FlowQuery,
        ) -> Result<crate::control::FlowList, crate::control::SourceError> {
            Example.flows(query)
        }
        fn workers(&self) -> WorkerList {
            Example.workers()
        }
        fn streams(&self) -> StreamList {
            Example.streams()
        }
        fn counters(&self) -> Result<CounterList, crate::control::SourceError> {
            let cause: Box<dyn std::error::Error + Send + Sync> = io::Error::other("the map is gone").into();
            Err(cause.into())
        }
        fn invite(&self) -> crate::control::InviteStatus {
            Example.invite()
        }
        fn events(&self) -> crate::control::EventList {
            Example.events()
        }
        fn routes(&self) -> Result<crate::control::RouteList, crate::control::SourceError> {
            Example.routes()
        }
    }
    let sources = MetricsSources {
        source: Arc::new(Broken),
        ..sources(CheckState::Ok)
    };
    let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), &[], sources).unwrap();

    for path in ["/metrics", "/v1/counters"] {
        let (head, body) = get(&server, path);
        assert_eq!(code(&head), "500");
        assert!(body.contains("the map is gone"), "{body}");
    }
}

#[test]
fn clients_that_say_nothing_hold_up_nobody_and_heads_have_a_limit() {
    let server = serve(CheckState::Ok);
    let silent: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
        })
        .collect();

    assert_eq!(code(&get(&server, "/health").0), "200");

    let host = format!("host: {}\r\n", server.address());
    let long = format!("{host}x: {}\r\n", "y".repeat(20_000));
    let many = format!("{host}{}", "x: y\r\n".repeat(100));
    for headers in [long, many] {
        assert_eq!(code(&request(server.address(), "GET /health", &headers).0), "431");
    }
    drop(silent);
}

#[test]
fn more_connections_than_there_are_places_wait_and_are_served_then() {
    let server = serve(CheckState::Ok);
    let taken: Vec<_> = (0..server::MAX_CONNECTIONS)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let mut waiting = TcpStream::connect(server.address()).unwrap();
    waiting.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!(
        "GET /health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address()
    );
    waiting.write_all(request.as_bytes()).unwrap();

    for stream in taken {
        stream.shutdown(Shutdown::Both).unwrap();
    }

    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_server_that_is_dropped_leaves_its_address_and_its_source() {
    let sources = sources(CheckState::Ok);
    let source = Arc::downgrade(&sources.health);
    let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), &[], sources).unwrap();
    let address = server.address();
    let _open = TcpStream::connect(address).unwrap();
    let taken = MetricsServer::start(address, &[], self::sources(CheckState::Ok));

    drop(server);

    assert!(matches!(taken, Err(MetricsError::Listen { .. })));
    assert!(source.upgrade().is_none());
    MetricsServer::start(address, &[], self::sources(CheckState::Ok)).unwrap();
}
