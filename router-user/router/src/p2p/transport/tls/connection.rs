//! A TLS connection after its handshake: records to and from a socket.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use rustls::AlertDescription;

use super::{
    handshake::{NextSecrets, Secured},
    record::{ContentType, HEADER, MAX_CONTENT, MAX_RECORD, Opener, RecordError, Sealer, TAG, body_len},
};

/// First room for what comes, which is a record and a read of the socket.
const FIRST_INPUT: usize = MAX_RECORD + 8 * 1024;

/// Most room for what comes. More costs more in cache misses than it saves in system calls.
const MOST_INPUT: usize = MAX_RECORD + 64 * 1024;

/// Sealed bytes that wait for the socket, above which a peer that does not read loses the connection. What carries
/// packets stops long before.
const MOST_OUTPUT: usize = 512 * 1024;

/// Most records in a row that cost time and bring nothing: empty ones, and changes of a key.
const MAX_FRUITLESS: u32 = 32;

/// Most bytes of a message behind the handshake: a ticket for a resumption, which nobody uses.
const MAX_MESSAGE: usize = 32 * 1024;

const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;

/// A TLS connection whose records the caller takes and gives.
pub(in crate::p2p::transport) struct TlsConnection<C> {
    /// `None` once the connection is given up.
    socket: Option<C>,
    sealer: Sealer,
    opener: Opener,
    next: Box<dyn NextSecrets>,
    output: Output,
    input: Input,
    /// The begin of a message that goes on in the next record.
    message: Vec<u8>,
    n_fruitless: u32,
    /// Whether the peer has been answered with a new key, and the answer is not sent.
    is_answering: bool,
    is_closing: bool,
    has_ended: bool,
    has_failed: bool,
}

/// Sealed bytes on their way to the socket. `bytes` stays as long as it was, so that nothing is wiped again.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    n_sent: usize,
    n_sealed: usize,
}

/// Bytes that have come, of which those before `start` are dealt with.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the last read left no room.
    is_full: bool,
}

/// What became of opening a record into the caller's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::p2p::transport) enum OpenedInto {
    /// So many bytes of content are in it.
    Content(usize),
    /// It has no room for the next record.
    NoRoom,
    /// No whole record has come.
    Nothing,
}

impl<C: AsyncRead + AsyncWrite + Unpin> TlsConnection<C> {
    pub(super) fn new(socket: C, secured: Secured) -> Result<Self, RecordError> {
        let Secured {
            secrets,
            next,
            record_limit,
            rest,
        } = secured;
        let (n_sent, sending) = secrets.tx;
        let (n_received, receiving) = secrets.rx;
        Ok(Self {
            socket: Some(socket),
            sealer: Sealer::new(&sending, n_sent, record_limit)?,
            opener: Opener::new(&receiving, n_received)?,
            next,
            output: Output::default(),
            input: Input {
                end: rest.len(),
                bytes: rest,
                ..Input::default()
            },
            message: Vec::new(),
            n_fruitless: 0,
            is_answering: false,
            is_closing: false,
            has_ended: false,
            has_failed: false,
        })
    }

    /// Returns how many sealed bytes wait for the socket.
    pub(in crate::p2p::transport) fn n_unsent(&self) -> usize {
        self.output.n_sealed - self.output.n_sent
    }

    /// Says whether the peer has closed its side.
    pub(in crate::p2p::transport) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Seals a record of `content`, followed by `trailer`.
    ///
    /// # Errors
    /// The connection is over, or is now, as the peer takes nothing.
    pub(in crate::p2p::transport) fn seal(&mut self, content: &[u8], trailer: &[u8]) -> io::Result<()> {
        if self.has_failed || self.is_closing {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.n_unsent() >= MOST_OUTPUT {
            return Err(self.fail(RecordError::Unread));
        }
        if self.sealer.wants_next() {
            self.change_key().map_err(|error| self.fail(error))?;
        }
        let sealed = self
            .output
            .seal(&mut self.sealer, ContentType::ApplicationData, content, trailer);
        sealed.map_err(|error| self.fail(error))
    }

    /// Sends what is sealed.
    pub(in crate::p2p::transport) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.output.unsent() {
            let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            match ready!(Pin::new(socket).poll_write(cx, bytes)) {
                Ok(n) if n > 0 => self.output.handle_sent(n),
                written => {
                    self.has_failed = true;
                    let error = written.err().unwrap_or(io::ErrorKind::WriteZero.into());
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.is_answering = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what is sealed, and has the socket send what it holds back. A TCP socket holds nothing back.
    pub(in crate::p2p::transport) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Pin::new(socket).poll_flush(cx)
    }

    /// Waits until more has come, or the peer has ended.
    ///
    /// # Errors
    /// The socket fails, or ends without the peer's goodbye.
    pub(in crate::p2p::transport) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.input.room();
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let n = match ready!(Pin::new(socket).poll_read(cx, room)) {
            Ok(n) if n > 0 => n,
            read => {
                self.has_failed = true;
                let error = read.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                return Poll::Ready(Err(error));
            }
        };
        self.input.handle_received(n);
        Poll::Ready(Ok(()))
    }

    /// Says whether a whole record has come and is not opened, or a fault is to be found in the next one.
    pub(in crate::p2p::transport) fn has_record(&self) -> bool {
        !self.has_ended && !matches!(self.input.next_body(), Ok(None))
    }

    /// Says whether the last read has left no room, so that there may be more in the socket.
    pub(in crate::p2p::transport) fn is_input_full(&self) -> bool {
        self.input.is_full
    }

    /// Opens the next record with content, where it lies. [`TlsConnection::content`] has what is at the place returned.
    ///
    /// # Errors
    /// The peer broke a rule, or said that we did. The connection is over.
    pub(in crate::p2p::transport) fn open(&mut self) -> io::Result<Option<Range<usize>>> {
        loop {
            let Some(body) = self.next_body()? else {
                return Ok(None);
            };
            let opened = self.opener.open_in_place(&mut self.input.bytes[body.clone()]);
            let (typ, n) = opened.map_err(|error| self.fail(error))?;
            let content = body.start..body.start + n;
            if typ == ContentType::ApplicationData {
                if self.has_content(n)? {
                    return Ok(Some(content));
                }
            } else {
                let content = self.input.bytes[content].to_vec();
                self.handle_own(typ, &content)?;
            }
        }
    }

    /// Returns content that [`TlsConnection::open`] has opened.
    pub(in crate::p2p::transport) fn content(&self, at: Range<usize>) -> &[u8] {
        self.input.bytes.get(at).unwrap_or_default()
    }

    /// Opens the next record with content into `target`.
    ///
    /// # Errors
    /// As [`TlsConnection::open`].
    pub(in crate::p2p::transport) fn open_into(&mut self, target: &mut [u8]) -> io::Result<OpenedInto> {
        loop {
            if let Ok(Some(body)) = self.input.next_body()
                && target.len() < body.len() - TAG
            {
                return Ok(OpenedInto::NoRoom);
            }
            let Some(body) = self.next_body()? else {
                return Ok(OpenedInto::Nothing);
            };
            let opened = self.opener.open_into(&self.input.bytes[body], target);
            let (typ, n) = opened.map_err(|error| self.fail(error))?;
            if typ == ContentType::ApplicationData {
                if self.has_content(n)? {
                    return Ok(OpenedInto::Content(n));
                }
            } else {
                let content = target[..n].to_vec();
                self.handle_own(typ, &content)?;
            }
        }
    }

    /// Says goodbye, after all that was sealed, and waits until the peer has closed.
    pub(in crate::p2p::transport) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing && !self.has_failed {
            self.is_closing = true;
            let goodbye = [1, AlertDescription::CloseNotify.into()];
            let sealed = self
                .output
                .seal(&mut self.sealer, ContentType::Alert, &goodbye, &[]);
            sealed.map_err(|error| self.fail(error))?;
        }
        ready!(self.poll_send(cx))?;
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Pin::new(socket).poll_close(cx)
    }

    /// Gives the connection up: nothing is sent or received any more.
    pub(in crate::p2p::transport) fn abandon(&mut self) {
        self.has_failed = true;
        self.socket = None;
        self.output = Output::default();
        self.input = Input::default();
    }

    /// Ends the connection because of what the peer has sent, and tells it why if the socket takes that now.
    pub(in crate::p2p::transport) fn refuse(&mut self, alert: AlertDescription) {
        if self.has_failed || self.is_closing {
            return;
        }
        self.has_failed = true;
        let fatal = [2, alert.into()];
        let sealed = self
            .output
            .seal(&mut self.sealer, ContentType::Alert, &fatal, &[]);
        if sealed.is_ok() {
            let _in_vain = self.poll_send(&mut Context::from_waker(Waker::noop()));
        }
    }

    fn fail(&mut self, error: RecordError) -> io::Error {
        self.refuse(error.alert());
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Takes the body of the next record from the input.
    fn next_body(&mut self) -> io::Result<Option<Range<usize>>> {
        if self.has_ended {
            return Ok(None);
        }
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let body = self.input.next_body();
        let body = body.map_err(|error| self.fail(error))?;
        if let Some(body) = &body {
            self.input.start = body.end;
        }
        Ok(body)
    }

    /// Says whether a record with so many bytes for the caller has any.
    fn has_content(&mut self, n: usize) -> io::Result<bool> {
        if !self.message.is_empty() {
            return Err(self.fail(RecordError::Message));
        }
        if n == 0 {
            self.handle_fruitless()?;
            return Ok(false);
        }
        self.n_fruitless = 0;
        Ok(true)
    }

    fn handle_fruitless(&mut self) -> io::Result<()> {
        self.n_fruitless += 1;
        match self.n_fruitless > MAX_FRUITLESS {
            true => Err(self.fail(RecordError::Fruitless(MAX_FRUITLESS))),
            false => Ok(()),
        }
    }

    /// Takes what TLS itself says.
    fn handle_own(&mut self, typ: ContentType, content: &[u8]) -> io::Result<()> {
        if typ == ContentType::Handshake {
            return self.handle_messages(content);
        }
        let &[_level, alert] = content else {
            return Err(self.fail(RecordError::Message));
        };
        match AlertDescription::from(alert) {
            AlertDescription::CloseNotify => self.has_ended = true,
            // A goodbye follows.
            AlertDescription::UserCanceled => self.handle_fruitless()?,
            alert => {
                self.has_failed = true;
                let received = rustls::Error::AlertReceived(alert);
                return Err(io::Error::new(io::ErrorKind::InvalidData, received));
            }
        }
        Ok(())
    }

    fn handle_messages(&mut self, content: &[u8]) -> io::Result<()> {
        self.handle_fruitless()?;
        if self.message.len() + content.len() > MAX_MESSAGE {
            return Err(self.fail(RecordError::Message));
        }
        self.message.extend_from_slice(content);
        while let Some(&[typ, n2, n1, n0, ref rest @ ..]) = self.message.get(..) {
            let n = u32::from_be_bytes([0, n2, n1, n0]) as usize;
            match (typ, rest) {
                (NEW_SESSION_TICKET, rest) if rest.len() < n => break,
                (NEW_SESSION_TICKET, _) => drop(self.message.drain(..4 + n)),
                // It ends its record, as the next one has another key.
                (KEY_UPDATE, &[asks @ 0..=1]) if n == 1 => {
                    self.message.clear();
                    self.handle_key_update(asks == 1)
                        .map_err(|error| self.fail(error))?;
                }
                (KEY_UPDATE, []) if n == 1 => break,
                _ => return Err(self.fail(RecordError::Message)),
            }
        }
        Ok(())
    }

    fn handle_key_update(&mut self, asks: bool) -> Result<(), RecordError> {
        let secrets = self.next.next_receiving();
        self.opener = Opener::new(&secrets.map_err(|_error| RecordError::Cipher)?, 0)?;
        // One answer does for all that came before it is sent.
        if asks && !self.is_answering && !self.is_closing {
            self.change_key()?;
            self.is_answering = true;
        }
        Ok(())
    }

    /// Seals with the next key from now on.
    fn change_key(&mut self) -> Result<(), RecordError> {
        let message = [KEY_UPDATE, 0, 0, 1, 0];
        self.output
            .seal(&mut self.sealer, ContentType::Handshake, &message, &[])?;
        let secrets = self.next.next_sending();
        self.sealer = self
            .sealer
            .next(&secrets.map_err(|_error| RecordError::Cipher)?)?;
        Ok(())
    }
}

impl Output {
    fn seal(
        &mut self,
        sealer: &mut Sealer,
        typ: ContentType,
        content: &[u8],
        trailer: &[u8],
    ) -> Result<(), RecordError> {
        let n_content = content.len() + trailer.len();
        if n_content > MAX_CONTENT {
            return Err(RecordError::Length(n_content));
        }
        let end = self.n_sealed + Sealer::record_len(n_content);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        sealer.seal(typ, content, trailer, &mut self.bytes[self.n_sealed..end])?;
        self.n_sealed = end;
        Ok(())
    }

    fn unsent(&self) -> Option<&[u8]> {
        let bytes = self.bytes.get(self.n_sent..self.n_sealed)?;
        (!bytes.is_empty()).then_some(bytes)
    }

    fn handle_sent(&mut self, n: usize) {
        self.n_sent += n;
        if self.n_sent == self.n_sealed {
            (self.n_sent, self.n_sealed) = (0, 0);
        }
    }
}

impl Input {
    /// Returns where the body of the next record lies, if it has come whole.
    fn next_body(&self) -> Result<Option<Range<usize>>, RecordError> {
        let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some(n_body) = body_len(waiting)? else {
            return Ok(None);
        };
        let start = self.start + HEADER;
        Ok((self.end - start >= n_body).then_some(start..start + n_body))
    }

    /// Returns the room behind what has come.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() < FIRST_INPUT {
            self.bytes.resize(FIRST_INPUT, 0);
        }
        &mut self.bytes[self.end..]
    }

    fn handle_received(&mut self, n: usize) {
        self.end += n;
        self.is_full = self.end == self.bytes.len();
        if self.is_full && self.bytes.len() < MOST_INPUT {
            self.bytes.resize((self.bytes.len() * 2).min(MOST_INPUT), 0);
        }
    }
}

#[cfg(test)]
impl<C> TlsConnection<C> {
    /// Seals a record of any type, which nobody does who follows the rules.
    pub(super) fn seal_as(&mut self, typ: ContentType, content: &[u8]) {
        let sealed = self.output.seal(&mut self.sealer, typ, content, &[]);
        sealed.expect("it fits a record");
    }

    /// Returns what is sealed and not sent.
    pub(super) fn unsent(&self) -> &[u8] {
        self.output.unsent().unwrap_or_default()
    }
}
