//! A TCP socket that follows its connection to another runtime, and reads much per system call.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    runtime::{Handle, Id},
};

use crate::p2p::limits::DEAD_AFTER;

/// Largest read buffer. TLS and Noise read a record or less at a time, which would be a system call for every 4 KiB. A
/// larger buffer costs more in cache misses than it saves: 256 KiB here and in the cork took half as much CPU time again per byte.
const MAX_READ_BYTES: usize = 64 * 1024;

/// First read buffer of a connection that has not shown that it needs more.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// A TCP socket below the security protocol.
///
/// Handshakes run on one runtime and the connection on another. tokio binds a socket to the runtime that it was made in,
/// so each readiness event would cross threads; this type moves the socket when it is first used on another runtime.
#[derive(Debug)]
pub(super) struct Socket {
    /// The socket; `None` only while it is moved.
    stream: Option<TcpStream>,
    runtime: Option<Id>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // Data unacknowledged for so long means the path or the peer is gone. The kernel's own limit is 15 minutes.
        setsockopt(&stream, sockopt::TcpUserTimeout, &(DEAD_AFTER.as_millis() as u32))?;
        Ok(Self {
            stream: Some(stream),
            runtime: current_runtime(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
        })
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let runtime = current_runtime();
        if runtime != self.runtime
            && runtime.is_some()
            && let Some(stream) = self.stream.take()
        {
            self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            self.runtime = runtime;
        }
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(FIRST_READ_BYTES, 0);
        }
        let mut unfilled = ReadBuf::new(&mut buffer);
        let received = self.stream().map(|stream| stream.poll_read(cx, &mut unfilled));
        let n = unfilled.filled().len();
        let full = n == buffer.len();
        self.buffer = buffer;
        ready!(received?)?;
        self.start = 0;
        self.end = n;
        if full && self.buffer.len() < MAX_READ_BYTES {
            self.buffer.resize((self.buffer.len() * 4).min(MAX_READ_BYTES), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            ready!(self.poll_receive(cx))?;
        }
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        let n = waiting.len().min(target.len());
        target[..n].copy_from_slice(&waiting[..n]);
        self.start += n;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_shutdown(cx))?;
        // Closing a socket with unread input resets the connection, and what the peer has not yet received is lost. So
        // the peer is left to close first; how long it may take is for the caller to say.
        while let Ok(()) = ready!(self.poll_receive(cx)) {
            if self.end == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn current_runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::p2p::transport::test_network::in_own_network;

    #[test]
    fn socket_keeps_working_after_its_first_runtime_is_gone() {
        in_own_network(|| {
            let first = runtime();
            let (mut near, mut far) = first.block_on(pair());
            first.block_on(async {
                near.write_all(b"one").await.expect("write");
                let mut bytes = [0; 3];
                far.read_exact(&mut bytes).await.expect("read");
            });

            let second = runtime();
            let written = second.block_on(async {
                far.write_all(b"two").await.expect("write");
                let mut bytes = [0; 3];
                near.read_exact(&mut bytes).await.expect("read");
                bytes
            });
            drop(first);
            assert_eq!(&written, b"two");

            second.block_on(async {
                near.write_all(b"three").await.expect("write");
                let mut bytes = Vec::new();
                let receive = async {
                    far.read_to_end(&mut bytes).await.expect("read");
                    drop(far);
                };
                let (closed, ()) = tokio::join!(near.close(), receive);
                closed.expect("close");
                assert_eq!(bytes, b"three");
            });
        });
    }

    #[test]
    fn closing_with_unread_input_loses_nothing_written_before() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, mut far) = pair().await;
                far.write_all(b"never read").await.expect("write");
                let sent = vec![7; 3_000_000];
                let mut received = Vec::new();
                let send = async {
                    near.write_all(&sent).await.expect("write");
                    near.close().await.expect("close");
                    drop(near);
                };
                let receive = async {
                    far.read_to_end(&mut received).await.expect("read");
                    drop(far);
                };
                tokio::join!(send, receive);
                assert!(received == sent, "{} bytes", received.len());
            });
        });
    }

    #[test]
    fn read_buffer_grows_for_bulk_and_loses_nothing() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, mut far) = pair().await;
                let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
                let expected = sent.clone();
                let writer = tokio::spawn(async move {
                    near.write_all(&sent).await.expect("write");
                    near.close().await.expect("close");
                });
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.expect("read");
                assert!(received == expected);
                assert!(far.buffer.len() > FIRST_READ_BYTES && far.buffer.len() <= MAX_READ_BYTES);
                drop(far);
                writer.await.expect("writer");
            });
        });
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
    }

    async fn pair() -> (Socket, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let near = Socket::new(near.expect("connect")).expect("near socket");
        (near, Socket::new(far.expect("accept").0).expect("far socket"))
    }
}
