//! TLS 1.3 records, sealed and opened between buffers of the caller (RFC 8446, section 5).
//!
//! rustls does the handshake and derives all keys. Its own records cost a copy and an allocation on each side. What is
//! here is what a kernel does for kTLS: header, nonce, padding, and the count of records. Ciphers and the comparison of
//! tags are aws-lc's, as rustls'; it wipes the keys that it holds when they are dropped.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets};

/// Most bytes of content in a record.
pub(in crate::p2p::transport) const MAX_CONTENT: usize = 1 << 14;

/// Bytes of type, version and length before each record.
pub(super) const HEADER: usize = 5;

/// Bytes of the tag behind each record, with every cipher of TLS 1.3.
pub(super) const TAG: usize = 16;

/// Most bytes of a record: content, its type and padding, and the tag.
const MAX_BODY: usize = MAX_CONTENT + 256;

/// Most bytes of a whole record.
pub(super) const MAX_RECORD: usize = HEADER + MAX_BODY;

/// Most bytes that follow the content of a record and belong to it.
const MAX_TRAILER: usize = 8;

/// How many records before its limit a key is replaced.
const LIMIT_MARGIN: u64 = 1 << 10;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Alert,
    Handshake,
    ApplicationData,
}

/// Why bytes are no record, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::p2p::transport) enum RecordError {
    #[error("a record of type {0} is not protected")]
    Unprotected(u8),
    #[error("a record of {0} bytes")]
    Length(usize),
    #[error("a record does not fit its tag")]
    Tag,
    #[error("a record of type {0}, which is none of the protocol after the handshake")]
    Type(u8),
    #[error("a message of the handshake that does not belong after it")]
    Message,
    #[error("more than {0} records without content in a row")]
    Fruitless(u32),
    #[error("the peer does not take what answers it")]
    Unread,
    #[error("the key has sealed as many records as it may")]
    Exhausted,
    #[error("the cipher failed")]
    Cipher,
}

impl RecordError {
    /// Returns the alert that tells the peer.
    pub(super) fn alert(self) -> AlertDescription {
        match self {
            Self::Tag => AlertDescription::BadRecordMac,
            Self::Length(_) => AlertDescription::RecordOverflow,
            Self::Unprotected(_) | Self::Type(_) | Self::Message | Self::Fruitless(_) => {
                AlertDescription::UnexpectedMessage
            }
            Self::Unread | Self::Exhausted | Self::Cipher => AlertDescription::InternalError,
        }
    }
}

impl ContentType {
    fn to_wire(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    fn from_wire(byte: u8) -> Result<Self, RecordError> {
        match byte {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            other => Err(RecordError::Type(other)),
        }
    }
}

/// The key of one direction, and how many records it has been used for.
struct RecordKey {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    n_records: u64,
}

impl RecordKey {
    fn new(secrets: &ConnectionTrafficSecrets, n_records: u64) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Cipher),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_unspecified| RecordError::Cipher)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_length| RecordError::Cipher)?,
            n_records,
        })
    }

    /// Returns the nonce of the next record, which no other record gets.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..]
            .iter_mut()
            .zip(self.n_records.to_be_bytes())
        {
            *byte ^= number;
        }
        self.n_records = self.n_records.checked_add(1).ok_or(RecordError::Exhausted)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals the records of one direction.
pub(super) struct Sealer {
    key: RecordKey,
    limit: u64,
}

impl Sealer {
    /// Makes a sealer whose key has sealed `n_records` already, and may seal `limit`.
    pub(super) fn new(
        secrets: &ConnectionTrafficSecrets,
        n_records: u64,
        limit: u64,
    ) -> Result<Self, RecordError> {
        let key = RecordKey::new(secrets, n_records)?;
        Ok(Self { key, limit })
    }

    /// Makes the sealer that follows this one, with the next key.
    pub(super) fn next(&self, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        Self::new(secrets, 0, self.limit)
    }

    /// Says whether the key is to be replaced.
    pub(super) fn wants_next(&self) -> bool {
        self.key.n_records >= self.limit.saturating_sub(LIMIT_MARGIN)
    }

    /// Returns how long the record is that holds so many bytes of content.
    pub(super) fn record_len(n_content: usize) -> usize {
        HEADER + n_content + 1 + TAG
    }

    /// Seals `content` and what follows it, `trailer`, into `record`, whose length is [`Sealer::record_len`] of both.
    pub(super) fn seal(
        &mut self,
        typ: ContentType,
        content: &[u8],
        trailer: &[u8],
        record: &mut [u8],
    ) -> Result<(), RecordError> {
        let mut behind = [0; MAX_TRAILER + 1];
        let behind = behind.get_mut(..=trailer.len()).ok_or(RecordError::Cipher)?;
        behind[..trailer.len()].copy_from_slice(trailer);
        behind[trailer.len()] = typ.to_wire();
        self.seal_inner(content, behind, record)
    }

    /// Seals content and what stands behind it: its type, and padding.
    pub(super) fn seal_inner(
        &mut self,
        content: &[u8],
        behind: &[u8],
        record: &mut [u8],
    ) -> Result<(), RecordError> {
        if self.key.n_records >= self.limit {
            return Err(RecordError::Exhausted);
        }
        let (header, body) = record.split_first_chunk_mut().ok_or(RecordError::Cipher)?;
        *header = header_of(body.len())?;
        let (sealed, rest) = body
            .split_at_mut_checked(content.len())
            .ok_or(RecordError::Cipher)?;
        let nonce = self.key.next_nonce()?;
        self.key
            .key
            .seal_out_of_place_scatter(nonce, Aad::from(*header), content, sealed, behind, rest)
            .map_err(|_unspecified| RecordError::Cipher)
    }
}

/// Opens the records of one direction.
pub(super) struct Opener(RecordKey);

impl Opener {
    /// Makes an opener whose key has opened `n_records` already.
    pub(super) fn new(secrets: &ConnectionTrafficSecrets, n_records: u64) -> Result<Self, RecordError> {
        RecordKey::new(secrets, n_records).map(Self)
    }

    /// Opens the body of a record where it lies. Returns its type, and how long its content is, which is in front.
    pub(super) fn open_in_place(&mut self, body: &mut [u8]) -> Result<(ContentType, usize), RecordError> {
        let header = header_of(body.len())?;
        let nonce = self.0.next_nonce()?;
        let inner = self
            .0
            .key
            .open_in_place(nonce, Aad::from(header), body)
            .map_err(|_unspecified| RecordError::Tag)?;
        unpad(inner)
    }

    /// Opens the body of a record into `target`, which has room for the body without its tag.
    pub(super) fn open_into(
        &mut self,
        body: &[u8],
        target: &mut [u8],
    ) -> Result<(ContentType, usize), RecordError> {
        let header = header_of(body.len())?;
        let (inner, tag) = body.split_at(body.len() - TAG);
        let target = target.get_mut(..inner.len()).ok_or(RecordError::Cipher)?;
        let nonce = self.0.next_nonce()?;
        self.0
            .key
            .open_separate_gather(nonce, Aad::from(header), inner, tag, target)
            .map_err(|_unspecified| RecordError::Tag)?;
        unpad(target)
    }
}

/// Returns the header of a record with a body of this length. It is authenticated with the body.
fn header_of(body_len: usize) -> Result<[u8; HEADER], RecordError> {
    if !(1 + TAG..=MAX_BODY).contains(&body_len) {
        return Err(RecordError::Length(body_len));
    }
    let [high, low] = (body_len as u16).to_be_bytes();
    Ok([ContentType::ApplicationData.to_wire(), 3, 3, high, low])
}

/// Finds the type of a record, which stands behind its content and before its padding.
fn unpad(inner: &[u8]) -> Result<(ContentType, usize), RecordError> {
    let n_content = inner.iter().rposition(|byte| *byte != 0);
    let n_content = n_content.ok_or(RecordError::Type(0))?;
    if n_content > MAX_CONTENT {
        return Err(RecordError::Length(n_content));
    }
    Ok((ContentType::from_wire(inner[n_content])?, n_content))
}

/// Returns the length of the body of the record that `bytes` begin with, or `None` if its header is not whole. The
/// version in the header says nothing (RFC 8446, 5.1); with another one the tag does not fit.
pub(super) fn body_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[typ, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if typ != ContentType::ApplicationData.to_wire() {
        return Err(RecordError::Unprotected(typ));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    header_of(len).map(|_header| Some(len))
}
