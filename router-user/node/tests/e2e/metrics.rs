//! Metrics, health and the status page of live nodes, as programs and a browser see them.

#[path = "../../src/metrics/tests/lint.rs"]
mod lint;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::{NODE, machine};
use lint::lint;
use xtask::lab::process::until;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(60);
const DATAGRAMS: u64 = 30;

/// Where the first node serves, for its own host only, and the second, for both.
const INSIDE: &str = "127.0.0.1:9464";
const OUTSIDE: &str = "192.0.2.2:9464";

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
        side.config.sections = format!("\n[metrics]\nlisten = \"{listen}\"\n{workers}\n");
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
    page(&mut pair).unwrap();
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

/// In this order: all is well, the peer is gone, the device is down, the node is gone.
fn page(pair: &mut Pair) -> Result<()> {
    let (own, peer) = (pair.a.node.peer_id().to_owned(), pair.b.node.peer_id().to_owned());
    let directory = ScratchDir::unique("browser")?;
    let mut browser = Browser::open(&pair.a.host, directory.path(), &format!("http://{INSIDE}/"))?;
    let n_points = |plot: &str| {
        format!(
            "[...document.querySelectorAll('#plot-{plot} .curve')].every((line) => line.dataset.points >= 3)"
        )
    };

    for plot in ["throughput", "frames", "drops"] {
        browser.wait_for(&n_points(plot))?;
    }
    browser.wait_for("document.getElementById('health-text').textContent === 'up'")?;

    let mut text = |expression: &str| {
        Ok::<_, anyhow::Error>(
            browser
                .evaluate(expression)?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    assert_eq!(
        text("document.getElementById('tile-peers').textContent")?,
        "1 of 1"
    );
    assert!(text("document.getElementById('identity').textContent")?.starts_with(&own));
    assert!(text("document.querySelector('#peers td').title")?.starts_with(&peer));
    let row = text("document.querySelector('#peers tbody tr').innerText")?;
    assert!(
        row.contains(&peer[peer.len() - 8..]) && row.contains("connected"),
        "{row}"
    );
    assert!(
        row.contains("/ip4/192.0.2.2/tcp/") && row.contains(" ms"),
        "{row}"
    );
    assert!(!text("document.getElementById('more-tx').textContent")?.starts_with("0 B"));
    let path = text("document.querySelector('#plot-throughput .curve').getAttribute('d')")?;
    assert!(path.starts_with('M') && !path.contains("NaN"), "{path}");
    let n_rows = |table: &str| format!("document.querySelectorAll('#{table} tbody tr').length");
    let n_workers = pair.a.node.status()?.workers;
    assert_eq!(browser.evaluate(&n_rows("workers"))?, n_workers);
    assert!(browser.evaluate(&n_rows("streams"))?.as_u64() >= Some(1));
    assert!(browser.evaluate(&n_rows("events"))?.as_u64() >= Some(1));
    looks(&mut browser)?;
    controls(&mut browser)?;
    nothing_becomes_markup(&mut browser)?;
    assert_eq!(browser.problems(), [] as [Value; 0]);

    pair.b.node.stop(Signal::SIGTERM)?;
    browser.wait_for("document.getElementById('health-text').textContent === 'degraded'")?;
    browser.wait_for("document.querySelector('#peers tbody tr').innerText.includes('connecting')")?;
    assert_eq!(
        health(pair, "peers")?,
        (200, "degraded".to_owned(), "degraded".to_owned())
    );

    // The node brings it up again, until it gives in.
    until("the device stays down", LIMIT, || {
        pair.a.host.ip(&["link", "set", &pair.a.config.device, "down"])?;
        Ok(pair.a.node.log()?.contains("time and again").then_some(()))
    })?;
    browser.wait_for("document.getElementById('trouble').textContent.includes('is down')")?;
    assert_eq!(
        health(pair, "device")?,
        (503, "failing".to_owned(), "failing".to_owned())
    );

    pair.a.node.stop(Signal::SIGTERM)?;
    browser.wait_for("document.getElementById('health-text').textContent === 'no answer'")?;
    assert!(get(&pair.a.host, INSIDE, INSIDE, "/health").is_err());
    Ok(())
}

/// The policy lets the page's own style work, for every window and both colour schemes.
fn looks(browser: &mut Browser) -> Result<()> {
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for (width, scheme) in [(390, "light"), (1280, "dark")] {
        browser.show_as(width, scheme)?;
        let fits = browser.evaluate("document.documentElement.scrollWidth <= innerWidth")?;
        assert_eq!(fits, true, "{width}");
        grounds.push(browser.evaluate(ground)?);
    }
    assert_eq!(grounds, ["rgb(244, 246, 248)", "rgb(13, 17, 23)"]);
    Ok(())
}

fn controls(browser: &mut Browser) -> Result<()> {
    let pause = "(() => { const button = document.getElementById('pause'); button.click(); return button.ariaPressed; })()";
    assert_eq!(browser.evaluate(pause)?, "true");
    assert_eq!(browser.evaluate(pause)?, "false");
    browser.evaluate(
        "(() => { const shown = document.getElementById('window'); shown.value = '60'; shown.dispatchEvent(new Event('change')); \
         const plot = document.getElementById('plot-throughput'), at = plot.getBoundingClientRect(); \
         plot.dispatchEvent(new PointerEvent('pointermove', { clientX: at.right - 20, clientY: at.top + 20 })); })()",
    )?;
    browser.wait_for(
        "document.querySelector('#plot-throughput .axis:last-of-type').textContent.endsWith(' s')",
    )?;
    browser.wait_for("document.querySelector('#plot-throughput .cursor') !== null")?;
    Ok(())
}

/// Whatever a node says is text in the page.
fn nothing_becomes_markup(browser: &mut Browser) -> Result<()> {
    browser.evaluate(
        "window.asked = window.fetch; window.hostile = '<img src=x onerror=\"window.struck = true\"><b>bold</b>'; \
         window.fetch = async (path, options) => { \
           const answer = await window.asked(path, options); \
           if (path !== 'v1/peers') return answer; \
           const told = await answer.json(); \
           told.peers.forEach((peer) => { peer.id = peer.address = peer.last_dial_error = window.hostile; }); \
           return new Response(JSON.stringify(told)); \
         }; 0",
    )?;
    browser.wait_for("document.getElementById('peers').innerText.includes('<b>bold</b>')")?;
    assert_eq!(
        browser.evaluate("document.querySelector('#peers img, #peers b')")?,
        Value::Null
    );
    assert_eq!(browser.evaluate("window.struck === undefined")?, true);
    browser.evaluate("window.fetch = window.asked; 0")?;
    Ok(())
}
