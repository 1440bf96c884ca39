//! A large download over two nodes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures::stream;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};

use crate::support::{NODE, machine, noise, runtime};
use xtask::lab::Pair;

const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS: u64 = 16 * 1024;
/// Nine megabytes a second: far below what a debug build on a busy machine moves.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_gibibyte_over_http_arrives_unchanged() {
    let _machine = machine::alone();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let at = SocketAddr::new(pair.b.v4, 8080);
    let listener = pair.b.host.enter(|| Ok(TcpListener::bind(at)?)).unwrap();
    thread::spawn(move || serve(listener));
    let mut sent = Sha256::new();
    chunks().for_each(|chunk| sent.update(&chunk));

    let (n_bytes, received) = pair.a.host.enter(|| runtime().block_on(download(at))).unwrap();

    assert_eq!(n_bytes, CHUNKS * CHUNK_BYTES as u64);
    assert_eq!(received, <[u8; 32]>::from(sent.finalize()));
}

/// Chunks that differ from each other, so that one lost, repeated or moved changes the digest.
fn chunks() -> impl Iterator<Item = Bytes> {
    let base = noise(0, CHUNK_BYTES);
    (0..CHUNKS).map(move |number| {
        let mut chunk = base.clone();
        chunk[..8].copy_from_slice(&number.to_le_bytes());
        Bytes::from(chunk)
    })
}

fn serve(listener: TcpListener) -> Result<()> {
    runtime().block_on(async {
        listener.set_nonblocking(true)?;
        let body = || async { Body::from_stream(stream::iter(chunks().map(Ok::<_, std::io::Error>))) };
        let router = Router::new().route("/gibibyte", get(body));
        axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await?;
        Ok(())
    })
}

async fn download(at: SocketAddr) -> Result<(u64, [u8; 32])> {
    let work = async {
        let stream = tokio::net::TcpStream::connect(at).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get("/gibibyte")
            .header("host", at.to_string())
            .body(Empty::<Bytes>::new())?;
        let mut response = sender.send_request(request).await?;
        ensure!(
            response.status().is_success(),
            "the server answered {}",
            response.status()
        );
        let (mut n_bytes, mut digest) = (0, Sha256::new());
        while let Some(frame) = response.frame().await {
            if let Ok(data) = frame?.into_data() {
                n_bytes += data.len() as u64;
                digest.update(&data);
            }
        }
        Ok((n_bytes, digest.finalize().into()))
    };
    tokio::time::timeout(LIMIT, work)
        .await
        .context("the download stalled")?
}
