//! Checks the port of the metrics and the page: it is free, or the running node answers there.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;

const LIMIT: Duration = Duration::from_secs(2);

/// Most bytes of an answer that are read: the names of the metrics stand near its beginning.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What is at the port.
#[derive(Debug)]
enum Port {
    Free,
    /// A node's metrics are served there.
    Metrics,
    /// Something else listens there.
    Taken,
    Refused(io::Error),
}

/// Checks the address, if there is one.
pub(super) fn check(input: &CheckInput) -> Option<Finding> {
    let at = input.config.metrics().listen()?;
    Some(judge(at, &look(at), &input.running))
}

fn look(at: SocketAddr) -> Port {
    match TcpListener::bind(at) {
        Ok(_free) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match has_metrics(at) {
            Ok(true) => Port::Metrics,
            Ok(false) | Err(_) => Port::Taken,
        },
        Err(error) => Port::Refused(error),
    }
}

fn has_metrics(at: SocketAddr) -> io::Result<bool> {
    let mut to = at;
    if at.ip().is_unspecified() {
        to.set_ip(match at {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).contains("stream_router_"))
}

fn judge(at: SocketAddr, port: &Port, running: &RunningNode) -> Finding {
    const CHECK: &str = "metrics";
    let who = format!("ss -ltnp 'sport = :{}'", at.port());
    let finding = match (port, running) {
        (Port::Metrics, RunningNode::Yes(_)) => Finding::ok(CHECK, "served by the running node"),
        (Port::Metrics, RunningNode::Unknown) => Finding::unknown(
            CHECK,
            "a node serves it; which one cannot be told, as it may not be asked",
        ),
        (Port::Metrics, RunningNode::No) => Finding::problem(CHECK, "taken by another node").fix(who),
        (Port::Taken, _) => Finding::problem(CHECK, "taken by another program").fix(who),
        (Port::Free, RunningNode::Yes(_)) => Finding::problem(
            CHECK,
            "the running node does not listen there; it takes over metrics.listen when it is started",
        )
        .fix("systemctl restart stream-router"),
        (Port::Free, _) => Finding::ok(CHECK, "free"),
        (Port::Refused(error), _) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Finding::problem(CHECK, format!("{} is no address of this host", at.ip())).fix("ip address show")
        }
        (Port::Refused(error), _) => Finding::problem(CHECK, format!("cannot listen: {error}")),
    };
    finding.about(at.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_port_of_another_program_is_told_from_a_free_one() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = other.local_addr().unwrap();
        let answered = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().unwrap();
            let _request = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
            other
        });

        assert!(matches!(look(at), Port::Taken));

        drop(answered.join().unwrap());
        let verdict = |port| judge(at, &port, &RunningNode::No).verdict;
        assert!(matches!(look(at), Port::Free));
        assert_eq!(verdict(Port::Free), Verdict::Ok);
        assert_eq!(verdict(Port::Taken), Verdict::Problem);
        assert_eq!(verdict(Port::Metrics), Verdict::Problem);
        assert_eq!(
            judge(at, &Port::Metrics, &RunningNode::Unknown).verdict,
            Verdict::Unknown
        );
    }

    #[test]
    fn an_address_of_another_host_is_a_problem() {
        let at: SocketAddr = "203.0.113.1:9464".parse().unwrap();
        assert_eq!(
            judge(at, &look(at), &RunningNode::No).detail,
            "203.0.113.1 is no address of this host"
        );
    }
}
