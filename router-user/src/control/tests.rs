//! Server and client over a real socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::*;

struct Fixed;

impl StatusSource for Fixed {
    fn status(&self) -> Status {
        status()
    }
}

fn status() -> Status {
    Status {
        version: "1.2.3".to_owned(),
        uptime_seconds: 1.5,
        peer_id: "12D3KooWExample".to_owned(),
        device: DeviceStatus {
            name: "sr0".to_owned(),
            index: 7,
            mtu: 1420,
            addresses: vec!["10.42.0.1/24".to_owned()],
        },
        listen: Vec::new(),
        hook: "clsact egress".to_owned(),
        sink: "ring buffer".to_owned(),
        pins: None,
        workers: 8,
        retired_workers: 1,
        gateways: Vec::new(),
        peers: Vec::new(),
        counters: BTreeMap::from([("captured".to_owned(), 9)]),
    }
}

fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sr-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    directory
}

/// A server whose wishes are granted up to 32 workers and 10 streams.
fn serve(path: &std::path::Path) -> Result<ControlServer, ControlError> {
    let wishes = Wishes {
        workers: granted_up_to(32),
        streams: granted_up_to(10),
    };
    ControlServer::start(path, Arc::new(Fixed), wishes)
}

fn granted_up_to(most: u32) -> mpsc::Sender<Wish> {
    let (wishes, mut wished) = mpsc::channel::<Wish>(1);
    tokio::spawn(async move {
        while let Some(Wish { n_active, reply }) = wished.recv().await {
            let outcome = (n_active <= most).then_some(()).ok_or("too many".to_owned());
            let _ = reply.send(outcome);
        }
    });
    wishes
}

/// Sends raw bytes and returns the first line of the answer.
async fn raw(path: &std::path::Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn status_crosses_the_socket_whole_and_the_socket_is_private() {
    let directory = directory();
    let path = directory.join("run/control.sock");

    let server = serve(&path).unwrap();

    assert_eq!(fetch_status(&path).await.unwrap(), status());
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
async fn requests_that_make_no_sense_are_answered_as_http_says() {
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

    for (request, code) in [
        (format!("GET /v1/nothing HTTP/1.1\r\n{tail}\r\n"), "404"),
        (
            format!("POST /v1/status HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "405",
        ),
        (
            format!("PUT /v1/workers HTTP/1.1\r\n{tail}content-length: 0\r\n\r\n"),
            "415",
        ),
        (json("{"), "400"),
        (json("{\"active\": -1}"), "422"),
        (json("{\"active\": 4, \"idle\": 4}"), "422"),
        ("what is this?\r\n\r\n".to_owned(), "400"),
    ] {
        let line = raw(&path, &request).await;
        assert!(
            line.starts_with(&format!("HTTP/1.1 {code} ")),
            "{request:?}: {line:?}"
        );
    }
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_holds_up_nobody() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET /v1/status HT").await.unwrap();

    let answer = tokio::time::timeout(Duration::from_secs(5), fetch_status(&path)).await;

    assert_eq!(answer.unwrap().unwrap(), status());
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
    assert_eq!(fetch_status(&path).await.unwrap(), status());
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
    let none = fetch_status(&path).await.unwrap_err();
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

    let other = fetch_status(&path).await.unwrap_err();

    assert!(matches!(none, ControlError::NoNode { .. }), "{none}");
    assert!(matches!(other, ControlError::BadAnswer { .. }), "{other}");
    fs::remove_dir_all(directory).unwrap();
}
