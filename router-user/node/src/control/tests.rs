//! Server and client over a real socket.

mod documentation;
pub(crate) mod example;
mod reload;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::*;
use example::Example;
use reload::reloads;

fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sr-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    directory
}

/// A server whose requests are granted up to 32 workers and 10 streams.
fn serve(path: &std::path::Path) -> Result<ControlServer, ControlError> {
    let requests = ControlRequests {
        workers: granted_up_to(32),
        streams: granted_up_to(10),
        reload: Some(reloads()),
    };
    ControlServer::start(path, Arc::new(Example), requests)
}

fn granted_up_to(most: u32) -> mpsc::Sender<ScaleRequest> {
    let (requests, mut requested) = mpsc::channel::<ScaleRequest>(1);
    tokio::spawn(async move {
        while let Some(ScaleRequest { n_active, reply }) = requested.recv().await {
            let outcome = (n_active <= most).then_some(()).ok_or("too many".to_owned());
            let _ = reply.send(outcome);
        }
    });
    requests
}

/// Sends raw bytes and returns the answer.
async fn raw(path: &std::path::Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn status_crosses_the_socket_whole_and_the_socket_is_private() {
    let directory = directory();
    let path = directory.join("run/control.sock");

    let server = serve(&path).unwrap();

    assert_eq!(fetch::<Status>(&path, "").await.unwrap(), Example.status());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    drop(server);
    assert!(!path.exists());
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_wish_is_granted_or_refused_with_the_reason() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();

    set_workers(&path, 32).await.unwrap();
    set_streams(&path, 10).await.unwrap();
    let refused = [
        set_workers(&path, 33).await.unwrap_err(),
        set_streams(&path, 11).await.unwrap_err(),
    ];

    for refused in refused {
        assert!(
            matches!(&refused, ControlError::Refused { reason, .. } if reason == "too many"),
            "{refused}"
        );
    }
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn every_resource_crosses_the_socket_whole_and_as_lines() {
    async fn check<R: Resource + PartialEq + std::fmt::Debug>(path: &std::path::Path, expected: R) {
        let text = fetch_text::<R>(path, "").await.unwrap();

        assert_eq!(fetch::<R>(path, "").await.unwrap(), expected);
        assert_eq!(text, serde_json::to_string_pretty(&expected).unwrap() + "\n");
    }
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();

    check(&path, Example.status()).await;
    check(&path, Example.peers()).await;
    check(&path, Example.flows(&FlowQuery::default()).unwrap()).await;
    check(&path, Example.workers()).await;
    check(&path, Example.streams()).await;
    check(&path, Example.counters().unwrap()).await;
    check(&path, Example.events()).await;
    check(&path, Example.invite()).await;
    check(&path, Example.routes().unwrap()).await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_query_reaches_the_source_and_what_it_says_comes_back() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();
    let query = |peer: &str| FlowQuery {
        peer: Some(peer.to_owned()),
        ..FlowQuery::default()
    };

    let nobody = fetch::<FlowList>(&path, &query("nobody").query())
        .await
        .unwrap_err();
    let broken = fetch::<FlowList>(&path, &query("broken").query())
        .await
        .unwrap_err();
    let limited = FlowQuery {
        limit: 1,
        ..FlowQuery::default()
    };

    assert!(
        nobody
            .to_string()
            .ends_with("refused: no peer's id ends with nobody"),
        "{nobody}"
    );
    assert!(broken.to_string().ends_with("refused: outer: inner"), "{broken}");
    assert_eq!(
        fetch::<FlowList>(&path, &limited.query())
            .await
            .unwrap()
            .flows
            .len(),
        1
    );
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_capture_crosses_the_socket_to_its_end() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();
    let query = CaptureQuery {
        filter: "not (tcp || udp)".to_owned(),
        snaplen: 96,
        ..CaptureQuery::default()
    };
    let mut reader = CaptureReader::open(&path, &query).await.unwrap();
    let mut blocks = CaptureBlocks::default();
    while let Some(bytes) = reader.next_bytes().await.unwrap() {
        blocks.handle_bytes(&bytes);
    }
    let mut records = Vec::new();
    while let Some(block) = blocks.next_block().unwrap() {
        records.push(match block.record {
            CaptureRecord::Packet(packet) => panic!("{packet:?}"),
            CaptureRecord::Dropped(n) => CaptureRecord::Dropped(n),
            CaptureRecord::End { dropped, reason } => CaptureRecord::End { dropped, reason },
            CaptureRecord::Other => CaptureRecord::Other,
        });
    }

    let end = CaptureRecord::End {
        dropped: 7,
        reason: "not (tcp || udp)".to_owned(),
    };
    assert_eq!(
        records,
        [
            CaptureRecord::Other,
            CaptureRecord::Other,
            CaptureRecord::Dropped(96),
            end
        ]
    );
    assert_eq!(blocks.pending(), 0);
    let busy = CaptureQuery { snaplen: 1, ..query };
    let refused = CaptureReader::open(&path, &busy).await.unwrap_err();
    assert!(refused.to_string().ends_with("refused: too many"), "{refused}");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_code_and_what_is_allowed() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();
    let tail = "host: x\r\nconnection: close\r\n";
    let json = |body: &str| {
        format!(
            "PUT /v1/workers HTTP/1.1\r\n{tail}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{tail}\r\n");

    for (request, code, said) in [
        (
            get("/v1/nothing"),
            "404",
            "there is no /v1/nothing; there are /v1/status, /v1/peers, ",
        ),
        (get("/"), "404", "/v1/routes"),
        (get("/v1/flows/1"), "404", "there is no /v1/flows/1"),
        (
            get("/v1/status?verbose=1"),
            "400",
            "/v1/status takes no parameters",
        ),
        (
            get("/v1/routes?sort=peer"),
            "400",
            "/v1/routes takes no parameters",
        ),
        (
            get("/v1/flows?colour=red"),
            "400",
            "there are peer, address, port, protocol, sort, limit",
        ),
        (
            get("/v1/capture?filter=tcp+and"),
            "400",
            "the filter is wrong at character 8",
        ),
        (
            get("/v1/capture?count=1"),
            "400",
            "there are filter, snaplen, direction",
        ),
        (get("/v1/capture?snaplen=1"), "429", "too many"),
        (get("/v1/flows?limit=-1"), "400", "a number from 1 to 10000"),
        (
            format!("POST /v1/status HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "405",
            "/v1/status takes no POST",
        ),
        (
            format!("DELETE /v1/workers HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "405",
            "/v1/workers takes no DELETE",
        ),
        (get("/v1/reload"), "405", "/v1/reload takes no GET"),
        (
            format!("POST /v1/reload?file=x HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "400",
            "/v1/reload takes no parameters",
        ),
        (
            format!("PUT /v1/workers HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "415",
            "application/json",
        ),
        (json("{"), "400", "EOF while parsing"),
        (json("{\"active\": -1}"), "422", "-1"),
        (
            json("{\"active\": 4, \"idle\": 4}"),
            "422",
            "unknown field `idle`",
        ),
        (json("{\"active\": 33}"), "422", "too many"),
    ] {
        let answer = raw(&path, &request).await;

        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{request:?}: {answer:?}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let ErrorBody { error } = serde_json::from_str(body).unwrap();
        assert!(error.contains(said), "{request:?}: {error:?}");
        if code == "405" {
            let takes = if request.contains("/reload") {
                "post"
            } else {
                "get"
            };
            let allow = format!("\r\nallow: {takes}");
            assert!(head.to_lowercase().contains(&allow), "{head:?}");
        }
    }
    let answer = raw(&path, "what is this?\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_holds_up_nobody() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET /v1/status HT").await.unwrap();

    let answer = tokio::time::timeout(Duration::from_secs(5), fetch::<Status>(&path, "")).await;

    assert_eq!(answer.unwrap().unwrap(), Example.status());
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn only_a_socket_that_nobody_serves_is_replaced() {
    let directory = directory();
    let path = directory.join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener leaves its socket");

    let server = serve(&path).unwrap();

    assert!(matches!(serve(&path), Err(ControlError::InUse { .. })));
    assert_eq!(fetch::<Status>(&path, "").await.unwrap(), Example.status());
    drop(server);
    fs::write(&path, "mine").unwrap();
    assert!(matches!(serve(&path), Err(ControlError::NotASocket { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_server_that_is_no_node_is_told_from_none() {
    let directory = directory();
    let path = directory.join("control.sock");
    let none = fetch::<Status>(&path, "").await.unwrap_err();
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 256];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .await
            .unwrap();
    });

    let other = fetch::<Status>(&path, "").await.unwrap_err();

    assert!(matches!(none, ControlError::NoNode { .. }), "{none}");
    assert!(matches!(other, ControlError::BadAnswer { .. }), "{other}");
    fs::remove_dir_all(directory).unwrap();
}
