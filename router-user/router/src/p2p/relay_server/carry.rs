//! What a circuit carries: one task for each direction, on the thread of the connection that it reads, where a stream gives what
//! has come without another copy.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    buffer::{BUFFER_BYTES, Buffer},
    rates::Gates,
};
use crate::p2p::reach::Served;

/// One end of a circuit, and the runtime of its connection.
#[derive(Debug)]
pub(super) struct CircuitEnd<S> {
    pub(super) stream: S,
    pub(super) runtime: Handle,
}

/// Has two ends exchange what comes, each direction until it ends, and both until one fails or the circuit is over. `place` is
/// dropped with the last.
pub(super) fn spawn<S>(
    ends: [CircuitEnd<S>; 2],
    gates: &Gates,
    served: &Arc<Served>,
    over: CancellationToken,
    place: impl Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let circuit = Arc::new((over, place));
    let [near, far] = ends;
    let (near_read, near_write) = near.stream.split();
    let (far_read, far_write) = far.stream.split();
    for (from, to, runtime) in [
        (near_read, far_write, near.runtime),
        (far_read, near_write, far.runtime),
    ] {
        let (gates, served, circuit) = (gates.clone(), Arc::clone(served), Arc::clone(&circuit));
        let direction = async move {
            let (over, _place) = &*circuit;
            tokio::select! {
                biased;
                end = carry(from, to, &gates, &served) => if let Err(error) = end {
                    tracing::debug!(%error, "a circuit fails");
                    over.cancel();
                },
                () = over.cancelled() => {}
            }
        };
        runtime.spawn(direction.in_current_span());
    }
}

/// Carries what comes to the other end, and then its end.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    gates: &Gates,
    served: &Served,
) -> io::Result<()> {
    let mut is_unflushed = false;
    loop {
        let piece = gates.piece();
        let most = piece.unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let (buffer, n) = poll_fn(|cx| poll_piece(&mut from, &mut to, &mut is_unflushed, most, cx)).await?;
        if n == 0 {
            return to.close().await;
        }
        if piece.is_some() {
            if is_unflushed {
                to.flush().await?;
            }
            gates.pass(n).await;
        }
        to.write_all(&buffer[..n]).await?;
        is_unflushed = true;
        served.count(n);
    }
}

/// Reads what has come. While nothing comes there is no buffer, and what was written is sent.
fn poll_piece(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    is_unflushed: &mut bool,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(Buffer, usize)>> {
    let mut buffer = Buffer::take();
    if let Poll::Ready(read) = Pin::new(from).poll_read(cx, &mut buffer[..most]) {
        return Poll::Ready(read.map(|n| (buffer, n)));
    }
    if *is_unflushed && Pin::new(to).poll_flush(cx)?.is_ready() {
        *is_unflushed = false;
    }
    Poll::Pending
}
