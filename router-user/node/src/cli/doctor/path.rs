//! Checks what the paths to the peers carry: a full segment goes to each address that is dialled over TCP.
//!
//! The segment opens the negotiation of a protocol that no node has. The peer's kernel acknowledges it, which is all
//! that is looked at.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::finding::Finding;
use super::input::CheckInput;
use super::ports::ListenAddress;

/// Most addresses that are tried at a time.
const AT_A_TIME: usize = 32;

/// How long an address may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How long a segment may be unacknowledged, in milliseconds; it is repeated meanwhile.
const ACKNOWLEDGED_MS: u32 = 3000;

/// How long an answer is waited for; by then the kernel has given up what nobody acknowledges.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);

/// The bound of segments in the second attempt, with which nodes dial as well.
const SMALL_SEGMENT: u32 = 1220;

/// The first message of a negotiation.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n";

/// The beginning of a protocol's name.
const PROTOCOL: &[u8] = b"/stream-router/path/";

/// Largest segment that is sent: what fits one message of the negotiation.
const MAX_SEGMENT: u32 = 16_000;

/// Smallest opening. Hosts' segments are larger, as every one takes 536 bytes.
const MIN_SEGMENT: usize = 256;

/// What became of a segment.
#[derive(Debug)]
enum Sent {
    /// It arrived.
    Arrived,
    /// It was repeated in vain.
    Lost,
    /// There is no connection to send it on.
    NotConnected(io::Error),
}

/// Sends a segment to every address.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn check(input: &CheckInput) -> Result<Vec<Finding>, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let addresses = input.config.peers().iter().flat_map(|peer| peer.addresses());
    let over_tcp: Vec<_> = addresses
        .filter_map(|address| Some((address.to_string(), ListenAddress::of(address)?)))
        .filter(|(_, to)| to.is_tcp)
        .collect();
    let mark = input.mark();
    let findings = stream::iter(over_tcp).map(|(address, to)| async move {
        let (bytes, whole) = send(to.at, mark, None).await;
        let small = match whole {
            Sent::Lost => Some(send(to.at, mark, Some(SMALL_SEGMENT)).await.1),
            Sent::Arrived | Sent::NotConnected(_) => None,
        };
        judge(bytes, &whole, small.as_ref()).about(address)
    });
    Ok(runtime.block_on(findings.buffered(AT_A_TIME).collect()))
}

/// Sends a full segment, of `bound` bytes if there is one. Returns how many bytes it had.
async fn send(to: SocketAddr, mark: Option<NonZeroU32>, bound: Option<u32>) -> (u32, Sent) {
    let mut bytes = 0;
    let sent = match try_send(to, mark, bound, &mut bytes).await {
        Ok(sent) => sent,
        Err(error) => Sent::NotConnected(error),
    };
    (bytes, sent)
}

async fn try_send(
    to: SocketAddr,
    mark: Option<NonZeroU32>,
    bound: Option<u32>,
    bytes: &mut u32,
) -> io::Result<Sent> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark.get())?;
    }
    if let Some(bound) = bound {
        setsockopt(&socket, sockopt::TcpMaxSeg, &bound)?;
    }
    let connected = timeout(CONNECT_LIMIT, socket.connect(to)).await;
    let mut stream = connected.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::TcpUserTimeout, &ACKNOWLEDGED_MS)?;
    let segment = getsockopt(&stream, sockopt::TcpMaxSeg)?.min(MAX_SEGMENT);
    *bytes = segment;
    stream.write_all(&opening(segment as usize)).await?;
    Ok(match timeout(ANSWER_LIMIT, stream.read(&mut [0; 64])).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Sent::Lost,
        // An answer, the end of the connection, or silence of one who has acknowledged it.
        Ok(_) | Err(_) => Sent::Arrived,
    })
}

/// Returns the opening of a negotiation that has `len` bytes, but no fewer than [`MIN_SEGMENT`].
fn opening(len: usize) -> Vec<u8> {
    let len = len.max(MIN_SEGMENT);
    let mut bytes = MULTISTREAM.to_vec();
    // A message begins with its length, from 128 on in two bytes of 7 bits each.
    let message = len - bytes.len() - 2;
    bytes.extend([(message & 0x7f) as u8 | 0x80, (message >> 7) as u8]);
    bytes.extend(PROTOCOL);
    bytes.resize(len - 1, b'x');
    bytes.push(b'\n');
    bytes
}

fn judge(bytes: u32, whole: &Sent, small: Option<&Sent>) -> Finding {
    const CHECK: &str = "path";
    match (whole, small) {
        (Sent::Arrived, _) => Finding::ok(CHECK, format!("a full segment of {bytes} bytes arrives")),
        (Sent::NotConnected(error), _) => Finding::unknown(
            CHECK,
            format!("not tried with a full segment, as there is no connection: {error}"),
        ),
        (Sent::Lost, Some(Sent::Arrived)) => Finding::warning(
            CHECK,
            format!(
                "drops large packets, and tells nobody: a full segment of {bytes} bytes does not arrive, one of \
                 {SMALL_SEGMENT} does; nodes find it out with each new connection and use smaller segments. Use QUIC \
                 for this peer, give its route an advmss, or let the kernel look for the size"
            ),
        )
        .fix("sysctl -w net.ipv4.tcp_mtu_probing=2"),
        (Sent::Lost, _) => Finding::problem(
            CHECK,
            format!("connects, and then neither {bytes} bytes nor {SMALL_SEGMENT} arrive"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn an_opening_fills_the_segment_and_says_its_own_length() {
        for len in [256, 536, 1220, 1448, 16_000] {
            let bytes = opening(len);
            assert_eq!(bytes.len(), len);
            let (length, message) = bytes[MULTISTREAM.len()..].split_at(2);
            let said = usize::from(length[0] & 0x7f) | usize::from(length[1]) << 7;
            assert_eq!(message.len(), said);
            assert!(message.starts_with(PROTOCOL) && message.ends_with(b"\n"));
        }
        assert_eq!(opening(0).len(), MIN_SEGMENT);
    }

    #[test]
    fn a_path_is_judged_by_what_arrives() {
        let refused = Sent::NotConnected(io::ErrorKind::ConnectionRefused.into());
        let verdict = |whole: &Sent, small| judge(1448, whole, small).verdict;

        assert_eq!(verdict(&Sent::Arrived, None), Verdict::Ok);
        assert_eq!(verdict(&refused, None), Verdict::Unknown);
        assert_eq!(verdict(&Sent::Lost, Some(&Sent::Arrived)), Verdict::Warning);
        assert_eq!(verdict(&Sent::Lost, Some(&Sent::Lost)), Verdict::Problem);
        assert_eq!(verdict(&Sent::Lost, Some(&refused)), Verdict::Problem);
    }
}
