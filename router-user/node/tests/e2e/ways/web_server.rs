//! A node behind the proxy that shares port 443 among a web server and it, by the protocols that a TLS greeting names.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Proxy;
use crate::support::packets::wait_for_packets;
use crate::support::{NODE, machine};
use xtask::lab::probe::{IperfServer, PingPlan, iperf};
use xtask::lab::process::{text, until};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(40);

/// Where the second host is reached. Its node listens at loopback addresses alone.
const V4: &str = "192.0.2.8";
const V6: &str = "2001:db8::8";

/// What the web server answers.
const PAGE: &str = "a page of the web server";

/// Streams and connections from the start on.
const SEVERAL: &str = "\n[streams]\nmin_per_peer = 3\n\n[workers]\nthreads = 2\n";

/// Starts a real nginx that has port 443, and is the web server too.
fn start_nginx(host: &Namespace, directory: &Path) -> Result<Proxy> {
    let (key, certificate) = (directory.join("web.key"), directory.join("web.crt"));
    let mut made = Command::new("openssl");
    made.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    made.args(["-days", "1", "-subj", "/CN=www.example.org", "-keyout"]);
    text(made.arg(&key).arg("-out").arg(&certificate), LIMIT)?;

    let config = directory.join("nginx.conf");
    fs::write(&config, config_text(directory, &key, &certificate))?;
    let mut command = host.command("nginx");
    command.arg("-c").arg(&config);
    let log = fs::File::create(directory.join("nginx.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let nginx = Proxy(command.spawn()?);
    until("nginx listens", LIMIT, || {
        let at = [
            SocketAddr::new(V4.parse()?, 443),
            SocketAddr::new(V6.parse()?, 443),
        ];
        let reached = host.enter(|| Ok(at.iter().all(|at| TcpStream::connect(at).is_ok())))?;
        Ok(reached.then_some(()))
    })?;
    Ok(nginx)
}

/// What operations.md has, with files of the test.
fn config_text(directory: &Path, key: &Path, certificate: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"load_module modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
user root;
pid {directory}/nginx.pid;
error_log stderr info;
events {{}}
stream {{
    map $ssl_preread_alpn_protocols $behind {{
        ~(^|,)libp2p(,|$) node;
        default web;
    }}
    upstream node {{ server 127.0.0.1:4001; }}
    upstream web {{ server 127.0.0.1:8443; }}
    server {{
        listen {V4}:443;
        listen [{V6}]:443;
        ssl_preread on;
        proxy_pass $behind;
        proxy_timeout 1h;
    }}
}}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:8443 ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ return 200 "{PAGE}"; }}
    }}
}}
"#,
        key = key.display(),
        certificate = certificate.display()
    )
}

/// Makes two nodes of which the second listens behind nginx and relays for the first.
fn prepare() -> Result<Pair> {
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), ScratchDir::unique("web")?)?;
    let [a, b] = [&pair.a.host, &pair.b.host];
    a.ip(&["address", "add", "2001:db8::1/64", "dev", "u0", "nodad"])?;
    b.ip(&["address", "add", &format!("{V6}/64"), "dev", "u0", "nodad"])?;
    b.ip(&["address", "add", &format!("{V4}/24"), "dev", "u0"])?;
    b.ip(&["link", "set", "lo", "up"])?;
    let peer = pair.b.config.peers.first_mut().context("the first is a peer")?;
    peer.addresses.clear();
    pair.b.config.listen = vec!["/ip4/127.0.0.1/tcp/4001".to_owned()];
    pair.b.config.sections = format!("{SEVERAL}\n[relay]\nserve = true\n");
    pair.b.node.configure(&pair.b.config)?;
    pair.b.node.start()?;
    Ok(pair)
}

/// Starts the first node with an address at which it dials the second.
fn dial(pair: &mut Pair, address: &str) -> Result<()> {
    let relay = pair.b.node.peer_id().to_owned();
    pair.a.config.sections = format!("{SEVERAL}\n[relay]\nvia = [{relay:?}]\n");
    pair.a.config.peers[0].addresses = vec![address.to_owned()];
    pair.a.node.configure(&pair.a.config)?;
    pair.a.node.start()?;
    Ok(())
}

fn browse(from: &Namespace, at: &str) -> Result<String> {
    let mut curl = from.command("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--globoff"]);
    text(curl.arg(format!("https://{at}/")), LIMIT)
}

/// Checks that the tunnel carries packets over several connections, all through port 443.
fn check(pair: &Pair) -> Result<()> {
    wait_for_packets(pair)?;
    for to in [pair.b.v4, pair.b.v6] {
        assert_eq!(PingPlan::new(to).run(&pair.a.host)?.n_lost(), 0, "{to}");
    }
    until("several connections", LIMIT, || {
        let peers: Value = pair.a.node.ask(&["peers"])?;
        let links = peers["peers"][0]["links"].as_array().context("there are links")?;
        let all_there = links.len() >= 2 && links.iter().all(|link| link["transport"] == "tcp");
        Ok(all_there.then_some(()))
    })?;
    let _server = IperfServer::start(&pair.b.host)?;
    let report = iperf(&pair.a.host, pair.b.v4, Duration::from_secs(2), &["-P", "4"])?;
    assert!(report.received_bits_per_second > 1e6, "{report:?}");

    // The node behind the proxy relays too, but what it sees of the other's address is the proxy's, and nobody is told that.
    let reach = until("a place at the relay", LIMIT, || {
        let reach = pair.a.node.ask::<Value>(&["status"])?["reach"].clone();
        Ok((reach["relays"][0]["held"] == true).then_some(reach))
    })?;
    assert_eq!(reach.0["seen"].as_array().map(Vec::len), Some(0), "{reach:?}");
    Ok(())
}

#[test]
fn a_node_shares_port_443_with_a_web_server_by_what_a_tls_greeting_names() {
    let _machine = machine::shared();
    let mut pair = prepare().unwrap();
    let nginx = start_nginx(&pair.b.host, pair.directory()).unwrap();

    // Without /tls the greeting is none of TLS, and the proxy takes it to the web server.
    dial(&mut pair, &format!("/ip4/{V4}/tcp/443")).unwrap();
    until("the failure is shown", LIMIT, || {
        let said: Value = pair.a.node.ask(&["peers"])?;
        Ok(said["peers"][0]["last_dial_error"].is_string().then_some(()))
    })
    .unwrap();

    for (address, web) in [
        (format!("/ip6/{V6}/tcp/443/tls"), format!("[{V6}]")),
        (format!("/ip4/{V4}/tcp/443/tls"), V4.to_owned()),
    ] {
        pair.a.node.stop(Signal::SIGTERM).unwrap();
        dial(&mut pair, &address).unwrap();
        check(&pair).unwrap();
        let shown: Value = pair.a.node.ask(&["peers"]).unwrap();
        let at = shown["peers"][0]["address"].as_str().unwrap();
        assert!(at.starts_with(&address), "{at}");
        assert_eq!(browse(&pair.a.host, &web).unwrap(), PAGE);
    }

    drop(nginx);
    let _nginx = start_nginx(&pair.b.host, pair.directory()).unwrap();
    wait_for_packets(&pair).unwrap();
}
