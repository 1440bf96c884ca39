//! Checks whether a node runs here already.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::finding::Finding;
use crate::cli::request::wait;
use crate::cli::units::seconds;
use crate::control::{ControlError, Status, fetch};

/// The answer at the control socket.
#[derive(Debug)]
pub(super) enum RunningNode {
    /// A node answers.
    Yes(Box<Status>),
    /// No node answers.
    No,
    /// The process may not ask.
    Unknown,
}

impl RunningNode {
    /// Returns the status of the running node.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Yes(status) => Some(status),
            Self::No | Self::Unknown => None,
        }
    }
}

/// What is at the path of the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketPlace {
    Nothing,
    Socket,
    Other,
}

/// Asks the node at `socket`.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn look(socket: &Path) -> Result<(RunningNode, Finding), Box<dyn std::error::Error>> {
    let place = match fs::symlink_metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => SocketPlace::Socket,
        Ok(_) => SocketPlace::Other,
        // No permission for the directory shows when it is asked.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => SocketPlace::Socket,
        Err(_) => SocketPlace::Nothing,
    };
    let answer = wait(async { Ok(fetch::<Status>(socket, "").await) })?;
    Ok(judge(socket, place, answer))
}

fn judge(socket: &Path, place: SocketPlace, answer: Result<Status, ControlError>) -> (RunningNode, Finding) {
    const CHECK: &str = "node";
    let shown = socket.display();
    let finding = match (answer, place) {
        (Ok(status), _) => {
            let detail = format!(
                "{} runs, version {}, for {}; {} of {} peers connected",
                status.device.name,
                status.version,
                seconds(status.uptime_seconds),
                status.connected_peers,
                status.configured_peers
            );
            return (RunningNode::Yes(Box::new(status)), Finding::ok(CHECK, detail));
        }
        (Err(ControlError::NoPermission { .. }), _) => {
            let finding = Finding::unknown(CHECK, format!("no permission for {shown}; run doctor as root"));
            return (RunningNode::Unknown, finding);
        }
        (Err(_), SocketPlace::Nothing) => Finding::ok(CHECK, format!("none runs with {shown}")),
        (Err(_), SocketPlace::Other) => Finding::problem(
            CHECK,
            format!("{shown} is no socket; a node does not start over it"),
        )
        .fix(format!("rm {shown}")),
        (Err(ControlError::NoNode { source, .. }), SocketPlace::Socket)
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Finding::ok(
                CHECK,
                format!("none runs; {shown} is left from one that was killed, the next takes its place"),
            )
        }
        (Err(error), SocketPlace::Socket) => {
            Finding::problem(CHECK, error.to_string()).fix(format!("ss -xlp src {shown}"))
        }
    };
    (RunningNode::No, finding)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_socket_is_judged_by_who_answers_and_what_stands_there() {
        let path = Path::new("/run/x.sock");
        let silent = |kind: io::ErrorKind| {
            Err(ControlError::NoNode {
                path: path.to_owned(),
                source: kind.into(),
            })
        };
        let denied = Err(ControlError::NoPermission {
            path: path.to_owned(),
            source: io::ErrorKind::PermissionDenied.into(),
        });
        let verdict = |place, answer| judge(path, place, answer).1.verdict;

        assert_eq!(
            verdict(SocketPlace::Nothing, silent(io::ErrorKind::NotFound)),
            Verdict::Ok
        );
        assert_eq!(
            verdict(SocketPlace::Socket, silent(io::ErrorKind::ConnectionRefused)),
            Verdict::Ok
        );
        assert_eq!(
            verdict(SocketPlace::Socket, silent(io::ErrorKind::TimedOut)),
            Verdict::Problem
        );
        assert_eq!(
            verdict(SocketPlace::Other, silent(io::ErrorKind::ConnectionRefused)),
            Verdict::Problem
        );
        let (running, finding) = judge(path, SocketPlace::Socket, denied);
        assert!(matches!(running, RunningNode::Unknown));
        assert_eq!(finding.verdict, Verdict::Unknown);
    }
}
