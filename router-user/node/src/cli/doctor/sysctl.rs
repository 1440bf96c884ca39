//! Checks settings of the kernel that cost throughput when they are small.

use std::fs;

use libp2p::multiaddr::Protocol;

use super::finding::Finding;
use super::input::CheckInput;

/// Buffer that a QUIC socket needs so that a burst is not lost: some milliseconds at several Gbit/s.
const QUIC_BUFFER_BYTES: u64 = 4 * 1024 * 1024;

/// Buffer that a TCP connection needs for 1 Gbit/s over a round trip of 30 ms; the kernel's own default is more.
const TCP_BUFFER_BYTES: u64 = 4 * 1024 * 1024;

/// Checks the buffers of sockets. QUIC sockets get the default size, as libp2p asks for none: `rmem_max` alone changes
/// nothing.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let peers = input.config.peers().iter().flat_map(|peer| peer.addresses());
    let has_quic = input
        .config
        .node()
        .listen()
        .iter()
        .chain(peers)
        .any(|address| address.iter().any(|part| part == Protocol::QuicV1));
    let mut findings = Vec::new();
    if has_quic {
        for name in ["net.core.rmem_default", "net.core.wmem_default"] {
            findings.push(judge_quic(name, read(name).as_deref()));
        }
    }
    for name in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
        findings.push(judge_tcp(name, read(name).as_deref()));
    }
    findings
}

/// Returns the value of a setting; `None` if it is not there or may not be read.
pub(super) fn read(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn judge_quic(name: &'static str, value: Option<&str>) -> Finding {
    const CHECK: &str = "quic_buffers";
    let Some(bytes) = value.and_then(|value| value.parse::<u64>().ok()) else {
        return Finding::unknown(CHECK, "cannot be read").about(name);
    };
    if bytes >= QUIC_BUFFER_BYTES {
        return Finding::ok(CHECK, format!("{bytes} bytes")).about(name);
    }
    Finding::warning(
        CHECK,
        format!("{bytes} bytes: QUIC loses packets under load; a node takes it over at its next start"),
    )
    .about(name)
    .fix(format!("sysctl -w {name}={QUIC_BUFFER_BYTES}"))
}

/// Judges the three values of a TCP buffer: the least, the first and the most bytes of a socket.
fn judge_tcp(name: &'static str, value: Option<&str>) -> Finding {
    const CHECK: &str = "tcp_buffers";
    let values: Vec<&str> = value.unwrap_or_default().split_whitespace().collect();
    let [least, first, most] = values[..] else {
        return Finding::unknown(CHECK, "cannot be read").about(name);
    };
    match most.parse::<u64>() {
        Ok(bytes) if bytes >= TCP_BUFFER_BYTES => {
            Finding::ok(CHECK, format!("up to {bytes} bytes")).about(name)
        }
        Ok(bytes) => Finding::warning(
            CHECK,
            format!("up to {bytes} bytes: too few for a fast path with a long round trip"),
        )
        .about(name)
        .fix(format!("sysctl -w {name}=\"{least} {first} {TCP_BUFFER_BYTES}\"")),
        Err(_no_number) => Finding::unknown(CHECK, "cannot be read").about(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn small_buffers_are_named_with_the_command_that_makes_them_larger() {
        assert_eq!(
            judge_quic("net.core.rmem_default", Some("4194304")).verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge_quic("net.core.rmem_default", None).verdict,
            Verdict::Unknown
        );
        let small = judge_quic("net.core.rmem_default", Some("212992"));
        assert_eq!(small.verdict, Verdict::Warning);
        assert_eq!(
            small.fix.as_deref(),
            Some("sysctl -w net.core.rmem_default=4194304")
        );
        assert_eq!(
            judge_tcp("net.ipv4.tcp_rmem", Some("4096\t131072\t6291456")).verdict,
            Verdict::Ok
        );
        let small = judge_tcp("net.ipv4.tcp_rmem", Some("4096\t131072\t212992"));
        assert_eq!(
            small.fix.as_deref(),
            Some("sysctl -w net.ipv4.tcp_rmem=\"4096 131072 4194304\"")
        );
        assert_eq!(
            judge_tcp("net.ipv4.tcp_rmem", Some("x")).verdict,
            Verdict::Unknown
        );
    }
}
