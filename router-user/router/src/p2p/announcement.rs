//! The announcement of a peer, which says where the peer is reached and what is behind it, signed with the peer's key.
//!
//! The signature proves which peer says so, and nothing else. Addresses are tried, and the handshake proves who answers
//! there. A network is the peer's only if the reader's own list lets that peer have it: see
//! [`TrustedOwners`](crate::discovery::TrustedOwners).
//!
//! The record is a libp2p [signed envelope](https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md)
//! whose payload is JSON: `{"sequence": MS, "expires": S, "addresses": [..], "networks": [..]}`, with the time of signing
//! in milliseconds and that of expiry in seconds of the Unix epoch.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use libp2p::{
    Multiaddr, PeerId,
    core::SignedEnvelope,
    identity::{Keypair, SigningError},
    kad::RecordKey,
};
use serde::{Deserialize, Serialize};

use super::address::check_address;

/// The domain of the signature, which keeps it from being taken for one of another protocol.
const DOMAIN: &str = "stream-router-announcement";
const PAYLOAD_TYPE: &[u8] = b"/stream-router/announcement/1";
const KEY_PREFIX: &[u8] = b"/stream-router/announcement/";

/// Longest record in bytes. One of 16 addresses and 64 networks is shorter.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 8192;
/// Most addresses in a record; further ones are not announced, and not read.
pub const MAX_ANNOUNCED_ADDRESSES: usize = 16;
/// Most networks in a record; further ones are not announced, and not read.
const MAX_ANNOUNCED_NETWORKS: usize = 64;

/// How long a record is valid. It is renewed long before it expires.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);
/// The longest validity that a record may claim, so that none outlives its meaning. It is longer than [`LIFETIME`], since
/// clocks differ.
const MAX_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// What a peer says of itself, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The peer that made and signed the announcement.
    pub peer: PeerId,
    /// The sequence number: of two announcements of a peer, the one with the larger number is newer.
    pub sequence: u64,
    /// When the announcement expires.
    pub expires: SystemTime,
    /// The addresses at which the peer says it is reached, without the peer's id.
    pub addresses: Vec<Multiaddr>,
    /// The networks that the peer says are behind it, which is only a claim.
    pub networks: Vec<IpNet>,
}

/// Why a record is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// The record is longer than any that is made.
    #[error("it has {len} bytes, more than {MAX_ANNOUNCEMENT_BYTES}")]
    TooLarge {
        /// The record's length in bytes.
        len: usize,
    },
    /// The bytes are no record at all.
    #[error("it is malformed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The signature does not match the content and the key, or was made for something else.
    #[error("its signature is not good")]
    Forged,
    /// The record was signed by another peer than the one that it is about.
    #[error("it is signed by {signer} and not by {expected}")]
    OtherPeer {
        /// The peer that signed the record.
        signer: Box<PeerId>,
        /// The peer that the record is about.
        expected: Box<PeerId>,
    },
    /// The record has expired.
    #[error("it has expired; are the clocks of both nodes right?")]
    Expired,
    /// The record claims to be valid for too long.
    #[error("it is good for longer than {MAX_LIFETIME:?}; are the clocks of both nodes right?")]
    TooLong,
}

/// How far the clock of a peer is off, as seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockDifference {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockDifference {
    fn of(said: SystemTime, expected: SystemTime) -> Self {
        match said.duration_since(expected) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(behind) => Self::Behind(behind.duration()),
        }
    }
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (difference, way) = match self {
            Self::Ahead(difference) => (difference, "ahead"),
            Self::Behind(difference) => (difference, "behind"),
        };
        write!(f, "{} s {way}", difference.as_secs())
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    sequence: u64,
    expires: u64,
    addresses: Vec<Multiaddr>,
    networks: Vec<IpNet>,
}

impl Announcement {
    /// Makes a record of the owner of `keypair`, valid for an hour from `now` on. It counts as newer than one with a
    /// smaller `sequence`.
    ///
    /// # Errors
    /// Returns an error if the key cannot sign.
    pub fn sign(
        keypair: &Keypair,
        sequence: u64,
        addresses: &[Multiaddr],
        networks: &[IpNet],
        now: SystemTime,
    ) -> Result<Vec<u8>, SigningError> {
        let expires = now.duration_since(UNIX_EPOCH).unwrap_or_default() + LIFETIME;
        let payload = Payload {
            sequence,
            expires: expires.as_secs(),
            addresses: addresses.iter().take(MAX_ANNOUNCED_ADDRESSES).cloned().collect(),
            networks: networks.iter().take(MAX_ANNOUNCED_NETWORKS).copied().collect(),
        };
        let payload = serde_json::to_vec(&payload).expect("numbers and strings are JSON");
        let envelope = SignedEnvelope::new(keypair, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?;
        Ok(envelope.into_protobuf_encoding())
    }

    /// Reads and verifies a record about `peer`. Addresses of transports that this node does not have are left out.
    ///
    /// # Errors
    /// Returns why the record is not believed at `now`.
    pub(super) fn verify(bytes: &[u8], peer: PeerId, now: SystemTime) -> Result<Self, AnnouncementError> {
        let read = Self::read(bytes, peer)?;
        match read.expires.duration_since(now) {
            Ok(left) if left > MAX_LIFETIME => Err(AnnouncementError::TooLong),
            Ok(left) if !left.is_zero() => Ok(read),
            Ok(_) | Err(_) => Err(AnnouncementError::Expired),
        }
    }

    /// Reads and verifies a record about `peer` that was made within its lifetime before `now`, whatever the clocks say.
    /// One that does not count at `now` by its own date counts for its lifetime from now on; how far the clock of its
    /// peer is ahead or behind is returned with it.
    ///
    /// # Errors
    /// Returns why the record is not believed.
    pub(super) fn verify_recent(
        bytes: &[u8],
        peer: PeerId,
        now: SystemTime,
    ) -> Result<(Self, Option<ClockDifference>), AnnouncementError> {
        match Self::verify(bytes, peer, now) {
            Err(AnnouncementError::Expired | AnnouncementError::TooLong) => {
                let mut read = Self::read(bytes, peer)?;
                let difference = ClockDifference::of(read.expires, now + LIFETIME);
                read.expires = now + LIFETIME;
                Ok((read, Some(difference)))
            }
            verified => Ok((verified?, None)),
        }
    }

    fn read(bytes: &[u8], peer: PeerId) -> Result<Self, AnnouncementError> {
        if bytes.len() > MAX_ANNOUNCEMENT_BYTES {
            return Err(AnnouncementError::TooLarge { len: bytes.len() });
        }
        let envelope = SignedEnvelope::from_protobuf_encoding(bytes)
            .map_err(|error| AnnouncementError::Malformed(error.into()))?;
        let (payload, key) = envelope
            .payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE)
            .map_err(|_forged| AnnouncementError::Forged)?;
        let signer = key.to_peer_id();
        if signer != peer {
            return Err(AnnouncementError::OtherPeer {
                signer: Box::new(signer),
                expected: Box::new(peer),
            });
        }
        let payload: Payload =
            serde_json::from_slice(payload).map_err(|error| AnnouncementError::Malformed(error.into()))?;
        let expires = UNIX_EPOCH
            .checked_add(Duration::from_secs(payload.expires))
            .ok_or(AnnouncementError::TooLong)?;
        let supported = |address: &Multiaddr| check_address(address, None).is_ok();
        let (addresses, networks) = (payload.addresses.into_iter(), payload.networks.into_iter());
        Ok(Self {
            peer,
            sequence: payload.sequence,
            expires,
            addresses: addresses
                .take(MAX_ANNOUNCED_ADDRESSES)
                .filter(supported)
                .collect(),
            networks: networks
                .take(MAX_ANNOUNCED_NETWORKS)
                .map(|net| net.trunc())
                .collect(),
        })
    }
}

/// Returns the key of a peer's record in the DHT.
pub(super) fn key_of(peer: PeerId) -> RecordKey {
    RecordKey::from([KEY_PREFIX, &peer.to_bytes()].concat())
}

/// Returns the peer whose record belongs under a key, or `None` if the key is no peer's.
pub(super) fn peer_of(key: &RecordKey) -> Option<PeerId> {
    let bytes = key.as_ref().strip_prefix(KEY_PREFIX)?;
    PeerId::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use libp2p::multiaddr::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn addresses() -> Vec<Multiaddr> {
        ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"]
            .map(|text| text.parse().expect("an address"))
            .to_vec()
    }

    fn networks() -> Vec<IpNet> {
        ["10.42.0.1/32", "fd42::/64"]
            .map(|text| text.parse().expect("a network"))
            .to_vec()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn signed(keypair: &Keypair) -> Vec<u8> {
        Announcement::sign(keypair, 7, &addresses(), &networks(), now()).expect("sign")
    }

    #[test]
    fn a_signed_record_reads_as_it_was_written() {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();

        let read = Announcement::verify(&signed(&keypair), peer, now()).expect("genuine");

        let expected = Announcement {
            peer,
            sequence: 7,
            expires: now() + LIFETIME,
            addresses: addresses(),
            networks: networks(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_record_of_another_key_is_refused() {
        let (keypair, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let other = other.public().to_peer_id();

        let refused = Announcement::verify(&signed(&keypair), other, now());

        assert!(
            matches!(&refused, Err(AnnouncementError::OtherPeer { expected, .. }) if **expected == other),
            "{refused:?}"
        );
    }

    #[test]
    fn a_record_counts_from_its_signing_to_its_expiry() {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let bytes = signed(&keypair);
        let at = |time| Announcement::verify(&bytes, peer, time);

        assert!(at(now() + LIFETIME - Duration::from_secs(1)).is_ok());
        assert!(matches!(at(now() + LIFETIME), Err(AnnouncementError::Expired)));
        assert!(at(now() + LIFETIME - MAX_LIFETIME).is_ok());
        let long_before = now() + LIFETIME - MAX_LIFETIME - Duration::from_secs(1);
        assert!(matches!(at(long_before), Err(AnnouncementError::TooLong)));
    }

    #[test]
    fn a_recent_record_of_a_peer_with_another_clock_counts_from_now_on() {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let bytes = signed(&keypair);
        let recent = |time| Announcement::verify_recent(&bytes, peer, time).expect("genuine");
        let days = 3 * Duration::from_secs(86_400);

        let (read, difference) = recent(now() + Duration::from_secs(600));
        assert_eq!((read.expires, difference), (now() + LIFETIME, None));
        let (read, difference) = recent(now() + days);
        assert_eq!(read.expires, now() + days + LIFETIME);
        assert_eq!(difference, Some(ClockDifference::Behind(days)));
        let (read, difference) = recent(now() - days);
        assert_eq!(read.expires, now() - days + LIFETIME);
        assert_eq!(
            difference.map(|is| is.to_string()),
            Some("259200 s ahead".to_owned())
        );
        let stranger = Keypair::generate_ed25519().public().to_peer_id();
        assert!(Announcement::verify_recent(&bytes, stranger, now() + days).is_err());
    }

    #[test]
    fn a_signature_for_something_else_is_refused() {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let payload = br#"{"sequence":1,"expires":1800000100,"addresses":[],"networks":[]}"#;
        let made = |domain: &str, kind: &[u8], payload: &[u8]| {
            SignedEnvelope::new(&keypair, domain.to_owned(), kind.to_vec(), payload.to_vec())
                .expect("sign")
                .into_protobuf_encoding()
        };
        let verify = |bytes: Vec<u8>| Announcement::verify(&bytes, peer, now());

        assert!(verify(made(DOMAIN, PAYLOAD_TYPE, payload)).is_ok());
        let other_domain = verify(made("libp2p-peer-record", PAYLOAD_TYPE, payload));
        assert!(matches!(other_domain, Err(AnnouncementError::Forged)));
        let other_type = verify(made(DOMAIN, b"/libp2p/peer-record", payload));
        assert!(matches!(other_type, Err(AnnouncementError::Forged)));
        for payload in [
            &b""[..],
            b"{}",
            br#"{"sequence":1,"expires":1800000100,"addresses":[],"networks":[],"more":1}"#,
            br#"{"sequence":-1,"expires":1800000100,"addresses":[],"networks":[]}"#,
            br#"{"sequence":1,"expires":1800000100,"addresses":["nowhere"],"networks":[]}"#,
        ] {
            let malformed = verify(made(DOMAIN, PAYLOAD_TYPE, payload));
            assert!(
                matches!(malformed, Err(AnnouncementError::Malformed(_))),
                "{malformed:?}"
            );
        }
        let endless = br#"{"sequence":1,"expires":18446744073709551615,"addresses":[],"networks":[]}"#;
        assert!(matches!(
            verify(made(DOMAIN, PAYLOAD_TYPE, endless)),
            Err(AnnouncementError::TooLong)
        ));
    }

    #[test]
    fn a_record_that_is_too_large_is_not_even_parsed() {
        let keypair = Keypair::generate_ed25519();
        let bytes = vec![0; MAX_ANNOUNCEMENT_BYTES + 1];

        let refused = Announcement::verify(&bytes, keypair.public().to_peer_id(), now());

        assert!(
            matches!(refused, Err(AnnouncementError::TooLarge { len }) if len == bytes.len()),
            "{refused:?}"
        );
    }

    #[test]
    fn the_longest_record_that_is_made_is_read() {
        let keypair = Keypair::generate_ed25519();
        let ip = |n: u16| IpAddr::from([0xfd42, 0x1234, 0x5678, 0x9abc, 0xdef0, 0x1234, 0x5678, n]);
        let addresses: Vec<_> = (0..100)
            .map(|n| {
                Multiaddr::from(ip(1000 + n))
                    .with(Protocol::Udp(65_535))
                    .with(Protocol::QuicV1)
            })
            .collect();
        let networks: Vec<_> = (0..100).map(|n| IpNet::from(ip(1000 + n))).collect();

        let bytes = Announcement::sign(&keypair, u64::MAX, &addresses, &networks, now()).expect("sign");

        let read = Announcement::verify(&bytes, keypair.public().to_peer_id(), now()).expect("genuine");
        assert_eq!(read.addresses, addresses[..MAX_ANNOUNCED_ADDRESSES]);
        assert_eq!(read.networks, networks[..MAX_ANNOUNCED_NETWORKS]);
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let keypair = Keypair::generate_ed25519();
        let mut announced = addresses();
        announced.push("/dns4/example.org/tcp/4001".parse().expect("an address"));

        let bytes = Announcement::sign(&keypair, 1, &announced, &[], now()).expect("sign");

        let read = Announcement::verify(&bytes, keypair.public().to_peer_id(), now()).expect("genuine");
        assert_eq!(read.addresses, addresses());
    }

    #[test]
    fn a_key_leads_back_to_its_peer_and_no_other_key_does() {
        let peer = PeerId::random();

        assert_eq!(peer_of(&key_of(peer)), Some(peer));
        for other in [peer.to_bytes(), KEY_PREFIX.to_vec(), b"/stream-router/".to_vec()] {
            assert_eq!(peer_of(&RecordKey::from(other)), None);
        }
    }

    proptest! {
        #[test]
        fn a_changed_record_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let keypair = Keypair::generate_ed25519();
            let mut bytes = signed(&keypair);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;

            let read = Announcement::verify(&bytes, keypair.public().to_peer_id(), now());

            prop_assert!(read.is_err(), "byte {} changed: {:?}", at, read);
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Announcement::verify(&bytes, PeerId::random(), now()).is_err());
        }

        #[test]
        fn what_is_signed_is_read(
            sequence in any::<u64>(),
            hosts in prop::collection::vec((any::<u32>(), any::<u16>()), 0..16),
            nets in prop::collection::vec((any::<u128>(), 0_u8..=128), 0..64),
        ) {
            let keypair = Keypair::generate_ed25519();
            let addresses: Vec<_> = hosts
                .into_iter()
                .map(|(ip, port)| Multiaddr::from(IpAddr::from(ip.to_be_bytes())).with(Protocol::Tcp(port)))
                .collect();
            let networks: Vec<_> = nets
                .into_iter()
                .map(|(ip, len)| IpNet::new_assert(std::net::Ipv6Addr::from(ip).into(), len).trunc())
                .collect();

            let bytes = Announcement::sign(&keypair, sequence, &addresses, &networks, now()).expect("sign");
            prop_assume!(bytes.len() <= MAX_ANNOUNCEMENT_BYTES);
            let read = Announcement::verify(&bytes, keypair.public().to_peer_id(), now()).expect("genuine");

            prop_assert_eq!(read.sequence, sequence);
            prop_assert_eq!(read.addresses, addresses);
            prop_assert_eq!(read.networks, networks);
        }
    }
}
