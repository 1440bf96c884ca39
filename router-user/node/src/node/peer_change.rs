//! Makes a change of the peers that a client asks for in the configuration of the running node.

use std::io;
use std::path::Path;

use nix::unistd::geteuid;

use super::config_problems::reload_problems;
use super::peer_files::{self, ChangeError, PeerError, PeerFields, PlaceError, ReplacementError};
use crate::config::{DropIn, Invite};
use crate::control::{NewPeer, PeerChange, ReloadProblems, ReloadRefusal};
use stream_router::p2p::PeerId;
use stream_router_engine::causes::with_sources;

/// Makes the change, without giving it to the node. It waits for the disk.
///
/// # Errors
/// Why it was not made.
pub(super) fn make(main: &Path, change: PeerChange) -> Result<(), ReloadRefusal> {
    let made = match change {
        PeerChange::Add(new) => {
            let (id, fields) = fields(*new).map_err(ReloadRefusal::Senseless)?;
            peer_files::add(main, id, &fields)
        }
        PeerChange::Remove(peer) => peer_files::remove(main, &peer),
    };
    made.map(drop).map_err(|error| refusal(&error, main))
}

fn refusal(error: &ChangeError, main: &Path) -> ReloadRefusal {
    let why = with_sources(error);
    match error {
        ChangeError::Peer(PeerError::Wrong { problems }) => ReloadRefusal::File(ReloadProblems {
            error: why,
            ..reload_problems(problems)
        }),
        ChangeError::Peer(PeerError::IsThere { .. })
        | ChangeError::Replacement(ReplacementError::Busy { .. } | ReplacementError::Changed { .. }) => {
            ReloadRefusal::Busy(why)
        }
        ChangeError::Place(PlaceError::Nobody { .. }) => ReloadRefusal::NoPeer(why),
        ChangeError::Replacement(ReplacementError::Io { path, source, .. }) => {
            ReloadRefusal::Unwritable(why + &advice(path, source, main))
        }
        ChangeError::Replacement(ReplacementError::Unreadable(_)) => ReloadRefusal::Unwritable(why),
        ChangeError::Peer(PeerError::NothingToSet)
        | ChangeError::Place(_)
        | ChangeError::Config(_)
        | ChangeError::Own(_)
        | ChangeError::Syntax(_) => ReloadRefusal::Senseless(why),
    }
}

/// Returns what can be done about a file that the node may not write: it is a user of its own, and its unit shows it a
/// system that cannot be written.
fn advice(path: &Path, why: &io::Error, main: &Path) -> String {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    if !matches!(why.kind(), PermissionDenied | ReadOnlyFilesystem) {
        return String::new();
    }
    if path == main {
        return format!(
            ": the node may not change the main file; `stream-router peer remove --config {}` as root does",
            main.display()
        );
    }
    let (directory, user) = (DropIn::directory(main), geteuid());
    let directory = directory.display();
    format!(
        ": the node writes as the user {user}, and as a service only where its unit lets it; run `install -d -o {user} \
         {directory}` as root, and start the node anew; ReadWritePaths={directory} in a unit of your own"
    )
}

/// Returns what a new peer is to have: what is said, then what the invite says.
fn fields(new: NewPeer) -> Result<(PeerId, PeerFields), String> {
    let id = new.id.as_deref().map(|id| {
        let parsed = id.parse::<PeerId>();
        parsed.map_err(|wrong| format!("{id:?} is no peer id: {wrong}"))
    });
    let id = id.transpose()?;
    let invite = new.invite.as_deref().map(|text| text.trim().parse::<Invite>());
    let invite = invite.transpose().map_err(|wrong| wrong.to_string())?;
    let invited = invite.as_ref().map(Invite::id);
    let id = match (id, invited) {
        (Some(id), Some(other)) if id != other => {
            return Err(format!("the invite is to {other}, and not to {id}"));
        }
        (id, invited) => id.or(invited).ok_or("an invite or an id is needed")?,
    };
    let texts = |texts: Vec<String>| (!texts.is_empty()).then_some(texts);
    let invite = invite.as_ref();
    let fields = PeerFields {
        called: new.name.or_else(|| invite?.name().map(str::to_owned)),
        allowed_ips: new
            .allowed_ips
            .or_else(|| texts(invite?.allowed_ips().iter().map(ToString::to_string).collect())),
        addresses: new
            .addresses
            .or_else(|| texts(invite?.addresses().iter().map(ToString::to_string).collect())),
        rate: new.rate,
        connect: new.connect,
        overrides: new.overrides,
        enabled: new.enabled,
        comment: new.comment,
    };
    Ok((id, fields))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::IDS;
    use xtask::lab::ScratchDir;

    fn main(directory: &ScratchDir) -> std::path::PathBuf {
        let main = directory.path().join("sr.toml");
        fs::write(&main, "[device]\naddresses = ['10.42.0.1/24']\n").unwrap();
        main
    }

    fn add(new: NewPeer) -> PeerChange {
        PeerChange::Add(Box::new(new))
    }

    #[test]
    fn a_peer_comes_by_its_invite_and_goes_by_its_name() {
        let directory = ScratchDir::unique("peer-change").unwrap();
        let main = main(&directory);
        let net = "10.42.0.2/32".parse().unwrap();
        let invite = Invite::new(IDS[0].parse().unwrap(), Vec::new(), vec![net]).unwrap();
        let invite = invite.with_name("rome".to_owned()).unwrap();
        let new = NewPeer {
            invite: Some(format!(" {invite}\n")),
            name: Some("roma".to_owned()),
            ..NewPeer::default()
        };

        make(&main, add(new.clone())).unwrap();

        let config = Config::load(&main).unwrap();
        assert_eq!(config.peers()[0].name(), Some("roma"));
        assert_eq!(config.peers()[0].allowed_ips(), [net]);
        let twice = make(&main, add(new)).unwrap_err();
        assert!(matches!(twice, ReloadRefusal::Busy(_)), "{twice:?}");
        make(&main, PeerChange::Remove("roma".to_owned())).unwrap();
        assert_eq!(Config::load(&main).unwrap().peers(), []);
        let gone = make(&main, PeerChange::Remove("roma".to_owned())).unwrap_err();
        assert!(matches!(gone, ReloadRefusal::NoPeer(_)), "{gone:?}");
    }

    #[test]
    fn what_may_not_be_written_is_named_with_what_lets_it() {
        let (main, file) = (Path::new("/etc/sr.toml"), Path::new("/etc/sr.d/rome.toml"));
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let said = advice(file, &kind.into(), main);
            assert!(
                said.contains("install -d -o ") && said.contains(" /etc/sr.d`"),
                "{said}"
            );
            let said = advice(main, &kind.into(), main);
            assert!(said.contains("peer remove --config /etc/sr.toml"), "{said}");
        }
        assert_eq!(advice(file, &io::ErrorKind::StorageFull.into(), main), "");
    }

    #[test]
    fn what_is_wrong_is_refused_and_nothing_is_written() {
        let directory = ScratchDir::unique("peer-change").unwrap();
        let main = main(&directory);
        let id = Some(IDS[0].to_owned());
        let invite = Invite::new(
            IDS[1].parse().unwrap(),
            Vec::new(),
            vec!["10.42.0.2/32".parse().unwrap()],
        );
        let invite = Some(invite.unwrap().to_string());

        let nobody = make(&main, add(NewPeer::default())).unwrap_err();
        let another = make(
            &main,
            add(NewPeer {
                id: id.clone(),
                invite,
                ..NewPeer::default()
            }),
        )
        .unwrap_err();
        let own_address = NewPeer {
            id,
            allowed_ips: Some(vec!["10.42.0.1/32".to_owned()]),
            ..NewPeer::default()
        };
        let wrong = make(&main, add(own_address)).unwrap_err();
        let path = NewPeer {
            id: Some(IDS[0].to_owned()),
            name: Some("../x".to_owned()),
            ..NewPeer::default()
        };
        let path = make(&main, add(path)).unwrap_err();

        assert!(matches!(nobody, ReloadRefusal::Senseless(_)), "{nobody:?}");
        assert!(matches!(another, ReloadRefusal::Senseless(_)), "{another:?}");
        assert!(matches!(wrong, ReloadRefusal::File(_)), "{wrong:?}");
        assert!(matches!(path, ReloadRefusal::File(_)), "{path:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
