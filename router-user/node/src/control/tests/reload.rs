//! Reading the configuration again, over a real socket.

use super::super::*;
use super::*;

/// What the first request gives, every field with a value.
pub(super) fn reload() -> Reload {
    let one = |text: &str| vec![text.to_owned()];
    Reload {
        file: "/etc/stream-router.toml".to_owned(),
        peers_added: one("12D3KooWAdded"),
        peers_removed: one("12D3KooWRemoved"),
        peers_changed: one("12D3KooWChanged"),
        peer_names: vec![PeerName {
            id: "12D3KooWAdded".to_owned(),
            name: "paris".to_owned(),
        }],
        applied: one("workers.max"),
        needs_restart: one("device.mtu"),
        notes: one("log.level has no effect"),
    }
}

/// What the second one gives, likewise.
pub(super) fn problems() -> ReloadProblems {
    ReloadProblems {
        error: "sr.toml:3: device.mtu: 5 is out of range (allowed: more)".to_owned(),
        problems: vec![ConfigProblem {
            file: "sr.toml".to_owned(),
            line: 3,
            field: "device.mtu".to_owned(),
            wrong: "5 is out of range".to_owned(),
            allowed: "more".to_owned(),
        }],
    }
}

/// Grants the first request, finds the file wrong at the second, cannot take it at the third, and then stops.
pub(super) fn reloads() -> mpsc::Sender<ReloadRequest> {
    let (requests, mut requested) = mpsc::channel::<ReloadRequest>(1);
    tokio::spawn(async move {
        for outcome in [
            Ok(reload()),
            Err(ReloadRefusal::File(problems())),
            Err(ReloadRefusal::Failed("the route is taken".to_owned())),
        ] {
            let Some(request) = requested.recv().await else {
                return;
            };
            let _ = request.reply.send(outcome);
        }
    });
    requests
}

#[tokio::test]
async fn a_reload_says_what_changed_or_why_nothing_did() {
    let directory = directory();
    let path = directory.join("control.sock");
    let _server = serve(&path).unwrap();

    let (done, text) = super::super::reload(&path).await.unwrap();
    assert_eq!(done, reload());
    assert_eq!(text, serde_json::to_string_pretty(&done).unwrap() + "\n");

    let wrong = super::super::reload(&path).await.unwrap_err();
    assert!(
        matches!(&wrong, ControlError::BadConfiguration { problems: said } if *said == problems()),
        "{wrong}"
    );
    assert_eq!(wrong.to_string(), problems().error);

    let refused = super::super::reload(&path).await.unwrap_err();
    assert!(
        refused.to_string().ends_with("refused: the route is taken"),
        "{refused}"
    );

    let stopping = super::super::reload(&path).await.unwrap_err();
    assert!(
        stopping.to_string().ends_with("the node is stopping"),
        "{stopping}"
    );
    fs::remove_dir_all(directory).unwrap();
}
