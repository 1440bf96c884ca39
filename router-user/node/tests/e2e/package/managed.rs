//! Peers that come and go by the page of the packaged service, under systemd itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{LIMIT, packages};
use crate::support::booted::Booted;
use crate::support::machine;
use xtask::lab::process::until;
use xtask::lab::{CleanRoot, ScratchDir};

const TOKEN: &str = "0123456789abcdef";
const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const CONFIG: &str = r#"[node]
listen = ["/ip4/127.0.0.1/tcp/4001"]
[device]
addresses = ["10.42.0.1/24"]
[metrics]
listen = "127.0.0.1:9464"
token_file = "/var/lib/stream-router/token"
"#;
/// What the text of a request is sent by, and the answer printed, where nothing else speaks HTTP.
const ASK: &str = r#"exec 3<>/dev/tcp/127.0.0.1/9464; printf '%s' "$1" >&3; cat <&3"#;

#[test]
fn a_service_writes_peers_once_the_directory_is_its_own() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("managed").unwrap();
    let packages = packages().unwrap();
    let root = CleanRoot::with(&packages.deb, &["systemd"]).unwrap();
    root.install(&packages.deb).unwrap();
    let main = root.path().join("etc/stream-router.toml");
    fs::remove_file(&main).unwrap();
    fs::write(&main, CONFIG).unwrap();
    let log = scratch.path().join("boot.log");
    let host = Booted::start(&root, &log).unwrap_or_else(|error| panic!("{error:#}\n{}", read(&log)));
    let sh = |line: &str| host.run(&["sh", "-ec", line]);
    sh("install -d -m 700 -o stream-router -g stream-router /var/lib/stream-router").unwrap();
    sh(&format!("umask 077; echo {TOKEN} > /var/lib/stream-router/token")).unwrap();

    // As root has written it, the node cannot read it; what is printed mends that.
    sh("stream-router keygen; chown stream-router: /var/lib/stream-router/identity.key").unwrap();
    let live = "stream-router check --live --config /etc/stream-router.toml || true";
    let said = sh(live).unwrap();
    let mend = "chown --reference=/var/lib/stream-router/identity.key /var/lib/stream-router/token";
    assert!(said.contains(mend), "{said}");
    sh(mend).unwrap();
    assert!(!sh(live).unwrap().contains("token_file"));

    let start = || {
        let started = host.run(&["systemctl", "restart", "stream-router"]);
        let journal = || host.run(&["journalctl", "--no-pager", "--unit=stream-router"]);
        started.unwrap_or_else(|error| panic!("{error:#}\n{}", journal().unwrap()));
    };
    let file = "/etc/stream-router.d/oslo.toml";
    let oslo = json!({"id": PEER, "name": "oslo", "allowed_ips": ["10.42.0.9/32"]});
    start();
    let (code, told) = ask(&host, "POST", "/v1/peers", &oslo).unwrap();
    let why = told["error"].as_str().unwrap();
    assert!(code >= 400 && why.contains("install -d -o "), "{code} {told}");

    // What the error says, by itself.
    let told = why.split('`').nth(1).unwrap();
    sh(told).unwrap();
    start();
    let (code, told) = ask(&host, "POST", "/v1/peers", &oslo).unwrap();
    assert_eq!((code, &told["peers_added"]), (200, &json!([PEER])), "{told}");
    assert!(sh(&format!("cat {file}")).unwrap().contains(PEER));
    let (code, told) = ask(&host, "DELETE", "/v1/peers/oslo", &Value::Null).unwrap();
    assert_eq!((code, &told["peers_removed"]), (200, &json!([PEER])), "{told}");
    assert!(sh(&format!("ls {file}")).is_err());

    // Root's commands need none of it; what they write, the node reads.
    let added = sh(&format!(
        "stream-router peer add {PEER} --as rome --allowed-ips 10.42.0.9/32"
    ));
    assert!(added.unwrap().contains("peer added: rome"));
    let set = sh("stream-router peer set rome --comment moved; stream-router peers rome");
    assert!(set.unwrap().contains("comment   moved"));
    let (code, told) = ask(&host, "DELETE", "/v1/peers/rome", &Value::Null).unwrap();
    assert_eq!(code, 200, "{told}");
    // A peer of the main file is left to root.
    let section = format!("[[peer]]\nid = '{PEER}'\nname = 'main'\nallowed_ips = ['10.42.0.9/32']\n");
    fs::write(&main, format!("{CONFIG}{section}")).unwrap();
    host.run(&["stream-router", "reload"]).unwrap();
    let (code, told) = ask(&host, "DELETE", "/v1/peers/main", &Value::Null).unwrap();
    let why = told["error"].as_str().unwrap();
    assert!(
        code >= 400 && why.contains("peer remove --config"),
        "{code} {told}"
    );
    let removed = sh("stream-router peer remove main").unwrap();
    assert!(removed.contains("peer removed: main"), "{removed}");
}

/// Asks the page's server, with the token; returns the code and the answer.
fn ask(host: &Booted, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (answer, _) = until("the page answers", LIMIT, || {
        // It may have been started just now.
        Ok(host.run(&["bash", "-c", ASK, "bash", &request]).ok())
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).context("no code")?.parse()?;
    let from = body.find('{').context("no object")?;
    let to = body.rfind('}').context("no end")?;
    Ok((code, serde_json::from_str(&body[from..=to])?))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
