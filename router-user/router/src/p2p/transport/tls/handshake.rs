//! The handshake of TLS, which leaves its keys to the caller.

use std::{future::poll_fn, io, pin::Pin};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use rustls::{
    CommonState, ConnectionTrafficSecrets, Error, ExtractedSecrets,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus},
};

/// Most bytes that are kept of a handshake that goes on: more than a peer's longest message, with its certificate.
const MAX_INCOMING: usize = 64 * 1024;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 * 1024;

/// What a handshake leaves.
pub(super) struct Secured {
    pub(super) secrets: ExtractedSecrets,
    pub(super) next: Box<dyn NextSecrets>,
    /// How many records a key may seal.
    pub(super) record_limit: u64,
    /// Bytes behind the handshake that have come already.
    pub(super) rest: Vec<u8>,
}

/// The secrets that follow when a side changes its key.
pub(super) trait NextSecrets: Send {
    /// Returns the next ones of what this side sends.
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, Error>;
    /// Returns the next ones of what the peer sends.
    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, Error>;
}

impl<D: Send> NextSecrets for KernelConnection<D> {
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_tx_secret().map(|(_zero, secrets)| secrets)
    }

    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_rx_secret().map(|(_zero, secrets)| secrets)
    }
}

/// One of the two sides of a handshake.
pub(super) trait Side: Sized {
    /// The type by which rustls tells the sides.
    type Data;
    /// Goes on with the handshake.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// Returns what both sides have in common.
    fn common(&self) -> &CommonState;
    /// Ends a handshake that is over.
    fn into_secrets(self) -> Result<(ExtractedSecrets, Box<dyn NextSecrets>), Error>;
}

macro_rules! side {
    ($connection:ty, $data:ty) => {
        impl Side for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn common(&self) -> &CommonState {
                self
            }

            fn into_secrets(self) -> Result<(ExtractedSecrets, Box<dyn NextSecrets>), Error> {
                let (secrets, next) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, Box::new(next)))
            }
        }
    };
}

side!(UnbufferedClientConnection, ClientConnectionData);
side!(UnbufferedServerConnection, ServerConnectionData);

/// What a step of the handshake asks for.
enum Step {
    /// Another step.
    Again,
    Send,
    Receive,
    Done,
}

/// Does a handshake on `socket`, and asks `describe` what to remember of it.
pub(super) async fn complete<S: Side, C: AsyncRead + AsyncWrite + Unpin, T>(
    mut side: S,
    socket: &mut C,
    describe: impl FnOnce(&CommonState) -> T,
) -> io::Result<(Secured, T)> {
    let mut outgoing = Vec::new();
    let mut incoming = Vec::new();
    // rustls gets whole records, one at a time, so that it opens none behind the handshake.
    let mut n_given = 0;
    loop {
        let UnbufferedStatus { discard, state } = side.process(&mut incoming[..n_given]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut outgoing).map(|()| Step::Again),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Send)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        incoming.drain(..discard);
        n_given -= discard;
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                send_alert(&mut side, &mut incoming[..n_given], outgoing, socket).await;
                return Err(error);
            }
        };
        match step {
            Step::Again => {}
            Step::Send => {
                socket.write_all(&outgoing).await?;
                socket.flush().await?;
                outgoing.clear();
            }
            Step::Done if !side.common().is_handshaking() => break,
            Step::Receive | Step::Done => n_given += receive_record(socket, &mut incoming, n_given).await?,
        }
    }
    let common = side.common();
    let described = describe(common);
    let suite = common.negotiated_cipher_suite().and_then(|suite| suite.tls13());
    let record_limit = suite
        .ok_or(io::ErrorKind::InvalidData)?
        .common
        .confidentiality_limit;
    let (secrets, next) = side.into_secrets().map_err(io::Error::other)?;
    incoming.drain(..n_given);
    let secured = Secured {
        secrets,
        next,
        record_limit,
        rest: incoming,
    };
    Ok((secured, described))
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let start = outgoing.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut [])
    {
        outgoing.resize(start + required_size, 0);
        data.encode(&mut outgoing[start..]).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Sends the alert that says why a handshake has failed, if there is one. It fails whatever becomes of the alert.
async fn send_alert<S: Side>(
    side: &mut S,
    incoming: &mut [u8],
    mut outgoing: Vec<u8>,
    socket: &mut (impl AsyncWrite + Unpin),
) {
    let Ok(ConnectionState::EncodeTlsData(data)) = side.process(incoming).state else {
        return;
    };
    if encode(data, &mut outgoing).is_ok() && socket.write_all(&outgoing).await.is_ok() {
        let _in_vain = socket.flush().await;
    }
}

/// Reads until a whole record stands in `incoming` from `start` on, and returns its length.
async fn receive_record(
    socket: &mut (impl AsyncRead + Unpin),
    incoming: &mut Vec<u8>,
    start: usize,
) -> io::Result<usize> {
    loop {
        if let Some(&[_, _, _, high, low, ref body @ ..]) = incoming.get(start..) {
            let n_body = usize::from(u16::from_be_bytes([high, low]));
            if body.len() >= n_body {
                return Ok(super::record::HEADER + n_body);
            }
        }
        let end = incoming.len();
        if end >= MAX_INCOMING {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the handshake is too long",
            ));
        }
        incoming.resize(end + READ_BYTES, 0);
        let n = poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut incoming[end..])).await;
        incoming.truncate(end + *n.as_ref().unwrap_or(&0));
        if n? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
