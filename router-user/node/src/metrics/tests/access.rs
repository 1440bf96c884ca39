//! Who may change something.

use tokio::sync::mpsc;
use xtask::lab::ScratchDir;

use super::*;
use crate::control::{PeerChange, Reload, ReloadRequest};

const TOKEN: &str = "0123456789abcdef";

fn token(text: &str) -> Token {
    use std::os::unix::fs::PermissionsExt;
    let directory = ScratchDir::unique("access").unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Token::load(&path).unwrap()
}

/// A server, what lets a token count there, and the changes that reach the node.
fn server() -> (
    MetricsServer,
    Access,
    std::sync::mpsc::Receiver<Option<PeerChange>>,
) {
    let (reloads, mut requested) = mpsc::channel::<ReloadRequest>(4);
    let (seen, changes) = std::sync::mpsc::sync_channel(8);
    std::thread::spawn(move || {
        while let Some(request) = requested.blocking_recv() {
            let _ = seen.send(request.change);
            let _ = request.reply.send(Ok(Reload::default()));
        }
    });
    let access = Access::default();
    let sources = MetricsSources {
        access: access.clone(),
        reloads: Some(reloads),
        ..sources(CheckState::Ok)
    };
    let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), &[], sources).unwrap();
    (server, access, changes)
}

fn ask(server: &MetricsServer, line: &str, headers: &str) -> (String, String) {
    let host = server.address();
    request(server.address(), line, &format!("host: {host}\r\n{headers}"))
}

const CHANGES: [&str; 4] = [
    "POST /v1/reload",
    "POST /v1/peers",
    "DELETE /v1/peers/rome",
    "GET /v1/flows",
];

#[test]
fn without_the_token_nothing_is_changed() {
    let (server, access, changes) = server();
    let right = format!("authorization: Bearer {TOKEN}\r\n");
    for line in CHANGES {
        // The node has none.
        assert_eq!(code(&ask(&server, line, &right).0), "403", "{line}");
    }

    access.set(Some(token(TOKEN)));

    for line in CHANGES {
        for wrong in [
            String::new(),
            format!("authorization: Bearer {TOKEN}0\r\n"),
            format!("authorization: Basic {TOKEN}\r\n"),
            format!("authorization: {TOKEN}\r\n"),
            "authorization: Bearer \r\n".to_owned(),
            format!("cookie: token={TOKEN}\r\n"),
            format!("{right}authorization: Bearer x\r\n"),
        ] {
            let (head, _) = ask(&server, line, &wrong);
            assert_eq!(code(&head), "401", "{line} {wrong}");
            assert!(head.contains("www-authenticate: Bearer"), "{head}");
        }
        // A page of another origin, even if it had the token.
        for site in [
            "origin: http://evil.example\r\n",
            "origin: null\r\n",
            "sec-fetch-site: cross-site\r\n",
            "sec-fetch-site: same-site\r\n",
        ] {
            assert_eq!(
                code(&ask(&server, line, &format!("{right}{site}")).0),
                "403",
                "{line} {site}"
            );
        }
        let (head, _) = request(server.address(), line, &format!("host: evil.example\r\n{right}"));
        assert_eq!(code(&head), "403", "{line}");
        // Nor may it ask whether it might.
        let path = line.split(' ').nth(1).unwrap();
        let (head, _) = ask(
            &server,
            &format!("OPTIONS {path}"),
            "origin: http://evil.example\r\n",
        );
        assert!(!head.to_ascii_lowercase().contains("access-control"), "{head}");
        assert_ne!(code(&head), "200");
    }
    assert!(changes.try_recv().is_err());
}

#[test]
fn with_the_token_the_node_is_asked() {
    let (server, access, changes) = server();
    access.set(Some(token(TOKEN)));
    let own = format!(
        "authorization: bearer {TOKEN}\r\norigin: http://{}\r\nsec-fetch-site: same-origin\r\n",
        server.address()
    );
    let host = format!("host: {}\r\n", server.address());
    let body = r#"{"id": "12D3"}"#;
    let json = format!(
        "{own}content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let long = format!("{own}content-type: application/json\r\ncontent-length: 5000\r\n");
    let too_long = format!(
        "POST /v1/peers HTTP/1.1\r\nconnection: close\r\n{host}{long}\r\n{}",
        "x".repeat(5000)
    );

    let reload = ask(&server, "POST /v1/reload", &own).0;
    let add = format!("POST /v1/peers HTTP/1.1\r\nconnection: close\r\n{host}{json}\r\n{body}");
    let add = send(server.address(), &add).0;
    let remove = ask(&server, "DELETE /v1/peers/a%20b", &own).0;
    let flows = ask(&server, "GET /v1/flows?limit=1", &own);
    let too_long = send(server.address(), &too_long).0;

    for head in [&reload, &add, &remove, &flows.0] {
        assert_eq!(code(head), "200", "{head}");
    }
    assert!(flows.1.contains("\"live\": 9"), "{}", flows.1);
    assert_eq!(code(&too_long), "413");
    assert_eq!(changes.recv().unwrap(), None);
    let added = changes.recv().unwrap().unwrap();
    assert!(
        matches!(&added, PeerChange::Add(peer) if peer.id.as_deref() == Some("12D3")),
        "{added:?}"
    );
    assert_eq!(
        changes.recv().unwrap(),
        Some(PeerChange::Remove("a b".to_owned()))
    );

    // Another token counts at once, and none, too.
    access.set(Some(token("fedcba9876543210")));
    assert_eq!(code(&ask(&server, "POST /v1/reload", &own).0), "401");
    access.set(None);
    assert_eq!(code(&ask(&server, "POST /v1/reload", &own).0), "403");
}
