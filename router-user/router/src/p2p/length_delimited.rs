//! Messages of libp2p: a length, and a protocol buffer of so many bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use prost::Message;

/// The largest message, as the stock implementations have it.
pub(super) const MAX_BYTES: usize = 4096;

/// Writes a message, and sends it.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &impl Message) -> io::Result<()> {
    stream
        .write_all(&message.encode_length_delimited_to_vec())
        .await?;
    stream.flush().await
}

/// Reads a message, and nothing of what follows it. One that is too large or cannot be decoded is an error of the kind
/// [`io::ErrorKind::InvalidData`].
pub(super) async fn read<M: Message + Default>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut bytes = vec![0; length(stream).await?];
    stream.read_exact(&mut bytes).await?;
    M::decode(bytes.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a length of at most two bytes, which is more than the largest message has.
async fn length(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut length = 0;
    for shift in [0, 7] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let [byte] = byte;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 && length <= MAX_BYTES {
            return Ok(length);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the message is too large",
    ))
}
