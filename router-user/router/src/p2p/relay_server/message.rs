//! The messages of circuit relay v2, as libp2p's specification has them.

use std::io;

use libp2p::{Multiaddr, PeerId, relay::StatusCode};
use prost::{Enumeration, Message};

/// Most addresses of a relay that a reservation says: with more it would not fit a message.
const MAX_ADDRESSES: usize = 16;

/// Most bytes of them.
const MAX_ADDRESS_BYTES: usize = 2048;

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Status {
    Ok = 100,
    ReservationRefused = 200,
    ResourceLimitExceeded = 201,
    PermissionDenied = 202,
    ConnectionFailed = 203,
    NoReservation = 204,
    MalformedMessage = 400,
    UnexpectedMessage = 401,
}

impl From<Status> for StatusCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::OK,
            Status::ReservationRefused => Self::ReservationRefused,
            Status::ResourceLimitExceeded => Self::ResourceLimitExceeded,
            Status::PermissionDenied => Self::PermissionDenied,
            Status::ConnectionFailed => Self::ConnectionFailed,
            Status::NoReservation => Self::NoReservation,
            Status::MalformedMessage => Self::MalformedMessage,
            Status::UnexpectedMessage => Self::UnexpectedMessage,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
enum HopKind {
    Reserve = 0,
    Connect = 1,
    Status = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
enum StopKind {
    Connect = 0,
    Status = 1,
}

/// `HopMessage` of the protocol: what a peer asks of the relay, and the answer. The limits that it could name are left out, as
/// there are none of the time and the bytes of a circuit.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HopMessage {
    #[prost(enumeration = "HopKind", required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    reservation: Option<Reservation>,
    #[prost(enumeration = "Status", optional, tag = "5")]
    status: Option<i32>,
}

/// `StopMessage` of the protocol: what the relay asks of the far end, and the answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StopMessage {
    #[prost(enumeration = "StopKind", required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(enumeration = "Status", optional, tag = "4")]
    status: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(bytes = "vec", required, tag = "1")]
    id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Reservation {
    /// In seconds since 1970.
    #[prost(uint64, required, tag = "1")]
    expire: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addrs: Vec<Vec<u8>>,
}

/// What a peer asks of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Reserve,
    Connect(PeerId),
}

impl HopMessage {
    /// Reads what is asked, or how the request ends because it is none.
    pub(super) fn request(&self) -> Result<Request, Status> {
        match HopKind::try_from(self.kind) {
            Ok(HopKind::Reserve) => Ok(Request::Reserve),
            Ok(HopKind::Connect) => {
                let peer = self.peer.as_ref().ok_or(Status::MalformedMessage)?;
                let to = PeerId::from_bytes(&peer.id).map_err(|_odd| Status::MalformedMessage)?;
                Ok(Request::Connect(to))
            }
            Ok(HopKind::Status) => Err(Status::UnexpectedMessage),
            Err(_unknown) => Err(Status::MalformedMessage),
        }
    }

    /// Makes the end of a request, which is no reservation.
    pub(super) fn end(status: Status) -> Self {
        Self {
            kind: HopKind::Status.into(),
            peer: None,
            reservation: None,
            status: Some(status.into()),
        }
    }

    /// Makes the answer to a request for a reservation: until when it holds, and where the relay is.
    pub(super) fn reserved(expire: u64, addresses: &[Multiaddr]) -> Self {
        let mut n_bytes = 0;
        let addresses = addresses.iter().map(Multiaddr::to_vec);
        let fitting = addresses.take(MAX_ADDRESSES).take_while(|address| {
            n_bytes += address.len();
            n_bytes <= MAX_ADDRESS_BYTES
        });
        Self {
            reservation: Some(Reservation {
                expire,
                addrs: fitting.collect(),
            }),
            ..Self::end(Status::Ok)
        }
    }
}

impl StopMessage {
    /// Makes the request to take a circuit of `from`.
    pub(super) fn connect(from: PeerId) -> Self {
        Self {
            kind: StopKind::Connect.into(),
            peer: Some(Peer { id: from.to_bytes() }),
            status: None,
        }
    }

    /// Says whether the far end takes the circuit.
    pub(super) fn answer(&self) -> Result<(), Status> {
        if StopKind::try_from(self.kind) != Ok(StopKind::Status) {
            return Err(Status::ConnectionFailed);
        }
        let status = self.status.and_then(|status| Status::try_from(status).ok());
        match status {
            Some(Status::Ok) => Ok(()),
            // Why is between the relay and the far end.
            _ => Err(Status::ConnectionFailed),
        }
    }
}

/// Says how a request ends that could not be read; `None` if nobody is there to hear it.
pub(super) fn unreadable(error: &io::Error) -> Option<Status> {
    (error.kind() == io::ErrorKind::InvalidData).then_some(Status::MalformedMessage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::p2p::length_delimited::MAX_BYTES;

    fn read(bytes: &[u8]) -> HopMessage {
        HopMessage::decode(bytes).expect("a message")
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        assert_eq!(read(&[0x08, 0]).request(), Ok(Request::Reserve));

        let peer = PeerId::random();
        let id = peer.to_bytes();
        let mut connect = vec![0x08, 1, 0x12, id.len() as u8 + 2, 0x0a, id.len() as u8];
        connect.extend(&id);
        assert_eq!(read(&connect).request(), Ok(Request::Connect(peer)));

        let refused = HopMessage::end(Status::ResourceLimitExceeded).encode_to_vec();
        assert_eq!(refused, [0x08, 2, 0x28, 201, 1]);

        let address: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().expect("an address");
        let reserved = HopMessage::reserved(7, std::slice::from_ref(&address)).encode_to_vec();
        assert_eq!(&reserved[..8], [0x08, 2, 0x1a, 12, 0x08, 7, 0x12, 8]);
        assert_eq!(&reserved[8..], [&address.to_vec()[..], &[0x28, 100]].concat());

        let stop = StopMessage::connect(peer).encode_to_vec();
        assert_eq!(stop, [&[0x08, 0][..], &connect[2..]].concat());
        let answer = |bytes: &[u8]| StopMessage::decode(bytes).expect("a message").answer();
        assert_eq!(answer(&[0x08, 1, 0x20, 100]), Ok(()));
        assert_eq!(answer(&[0x08, 1, 0x20, 202, 1]), Err(Status::ConnectionFailed));
    }

    #[test]
    fn what_is_no_request_ends_with_the_reason() {
        for (bytes, status) in [
            (&[0x08, 2, 0x28, 100][..], Status::UnexpectedMessage),
            (&[0x08, 9], Status::MalformedMessage),
            (&[0x08, 1], Status::MalformedMessage),
            (&[0x08, 1, 0x12, 3, 0x0a, 1, 0xff], Status::MalformedMessage),
        ] {
            assert_eq!(read(bytes).request(), Err(status), "{bytes:?}");
        }
        for bytes in [
            &[0x08, 0][..],
            &[0x08, 1],
            &[0x08, 1, 0x20, 7],
            &[0x08, 1, 0x20, 200, 1],
        ] {
            let answer = StopMessage::decode(bytes).expect("a message").answer();
            assert_eq!(answer, Err(Status::ConnectionFailed), "{bytes:?}");
        }
    }

    #[test]
    fn a_reservation_fits_a_message_however_many_addresses_the_relay_has() {
        let long: Multiaddr = format!("/dns/{}/tcp/1", "a".repeat(250))
            .parse()
            .expect("an address");
        let message = HopMessage::reserved(u64::MAX, &vec![long; 1000]);
        assert!(message.encoded_len() < MAX_BYTES);
        let n = message.reservation.expect("it is one").addrs.len();
        assert!((1..=MAX_ADDRESSES).contains(&n), "{n}");
    }
}
