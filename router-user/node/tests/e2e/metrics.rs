//! Metrics, health and the status page of live nodes, as programs and a browser see them.

#[path = "../../src/metrics/tests/lint.rs"]
mod lint;
mod page;
mod three_peers;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use lint::lint;
use xtask::lab::process::until;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(60);
const DATAGRAMS: u64 = 30;

/// Where the first node serves, for its own host only, and the second, for both.
const INSIDE: &str = "127.0.0.1:9464";
const OUTSIDE: &str = "192.0.2.2:9464";

/// What lets the reader of a page change something.
const TOKEN: &str = "0123456789abcdef";

/// Two nodes, each with metrics.
fn pair() -> Result<Pair> {
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("metrics")?,
    )?;
    for (side, listen) in [(&mut pair.a, INSIDE), (&mut pair.b, OUTSIDE)] {
        // The number of workers stays while it is compared.
        let workers = "[workers]\nscale_interval = \"1h\"";
        let token = side.node.config().with_file_name("token");
        fs::write(&token, TOKEN)?;
        fs::set_permissions(&token, Permissions::from_mode(0o600))?;
        let token = token.display();
        side.config.sections =
            format!("\n[metrics]\nlisten = \"{listen}\"\ntoken_file = \"{token}\"\n{workers}\n");
        side.node.configure(&side.config)?;
    }
    pair.start_nodes()?;
    Ok(pair)
}

/// Asks from a host; returns the code and the body.
pub(crate) fn get(from: &Namespace, address: &str, host: &str, path: &str) -> Result<(u16, String)> {
    from.enter(|| {
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/openmetrics-text\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let code = head.split(' ').nth(1).context("no code")?.parse()?;
        Ok((code, body.to_owned()))
    })
}

/// The first node's metrics.
fn scrape(pair: &Pair) -> Result<String> {
    let (code, text) = get(&pair.a.host, INSIDE, INSIDE, "/metrics")?;
    anyhow::ensure!(code == 200, "{code}: {text}");
    Ok(text)
}

/// The value of the series whose line begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The first node's health: the code, the status as a whole, and that of one check.
fn health(pair: &Pair, check: &str) -> Result<(u16, String, String)> {
    let (code, body) = get(&pair.a.host, INSIDE, INSIDE, "/health")?;
    let health: Value = serde_json::from_str(&body)?;
    let checks = health["checks"].as_array().context("no checks")?;
    let found = checks
        .iter()
        .find(|found| found["name"] == check)
        .context("no such check")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((code, text(&health["status"]), text(&found["status"])))
}

fn send_datagrams(from: &Side, to: IpAddr) -> Result<()> {
    let sender = from
        .host
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(from.v4, 0))?))?;
    for _ in 0..DATAGRAMS {
        sender.send_to(b"datagram", SocketAddr::new(to, 20_001))?;
    }
    Ok(())
}

#[test]
fn live_nodes_show_their_metrics_their_health_and_a_page() {
    let _machine = machine::shared();
    let mut pair = pair().unwrap();

    metrics(&pair).unwrap();
    beyond_loopback(&pair).unwrap();
    page::page(&mut pair).unwrap();
}

fn metrics(pair: &Pair) -> Result<()> {
    send_datagrams(&pair.a, pair.b.v4)?;
    let peer = pair.b.node.peer_id();
    let sent = format!("stream_router_peer_frames_total{{peer=\"{peer}\",direction=\"tx\"}}");
    let rtt = format!("stream_router_peer_rtt_seconds{{peer=\"{peer}\"}}");
    let (text, _) = until("traffic and a round trip are counted", LIMIT, || {
        let text = scrape(pair)?;
        let counted = value(&text, &sent) >= Some(DATAGRAMS as f64) && value(&text, &rtt).is_some();
        Ok(counted.then_some(text))
    })?;

    let families = lint(&text);

    let connected = &families["stream_router_peer_connected"];
    assert_eq!((connected.kind.as_str(), connected.n_samples), ("gauge", 1));
    assert!(connected.labels.contains("peer"));
    assert_eq!(
        value(&text, &format!("stream_router_peer_connected{{peer=\"{peer}\"}}")),
        Some(1.0)
    );
    let captured = value(
        &text,
        "stream_router_events_total{origin=\"kernel\",reason=\"captured\"}",
    );
    assert!(captured >= Some(DATAGRAMS as f64), "{captured:?}");
    for check in ["node", "threads", "device", "peers"] {
        let series = format!("stream_router_health_check{{check=\"{check}\"}}");
        assert_eq!(value(&text, &series), Some(1.0), "{check}");
    }
    let status = pair.a.node.status()?;
    let active = value(&text, "stream_router_workers{state=\"active\"}");
    assert_eq!(active, Some(f64::from(status.workers)));
    // Kernel, sockets, data path and connections all count.
    assert!(families["stream_router_drops_total"].n_samples > 15);
    for origin in ["kernel", "socket", "user", "network"] {
        assert!(
            text.contains(&format!("{{origin=\"{origin}\",reason=")),
            "{origin}"
        );
    }
    assert!(families["libp2p_swarm_connections_established_total"].n_samples >= 1);
    assert!(value(&text, "libp2p_ping_rtt_seconds_count") >= Some(1.0));
    assert!(value(&text, "process_resident_memory_bytes") > Some(1e6));
    // Outer addresses have no place in labels either.
    assert!(!text.contains("192.0.2."), "{text}");
    Ok(())
}

fn beyond_loopback(pair: &Pair) -> Result<()> {
    let ask = |host: &str| get(&pair.a.host, OUTSIDE, host, "/health");

    assert_eq!(ask(OUTSIDE)?.0, 200);
    assert_eq!(ask("node-b.example:9464")?.0, 403);
    let warning = "served without a password to whoever reaches this address";
    assert!(pair.b.node.log()?.contains(warning));
    assert!(!pair.a.node.log()?.contains(warning));
    // Nobody else reaches the node that serves inside.
    assert!(get(&pair.b.host, "192.0.2.1:9464", INSIDE, "/health").is_err());
    Ok(())
}
