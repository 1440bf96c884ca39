//! The messages of DCUtR.

use std::io;

use futures::{AsyncRead, AsyncWrite};
use libp2p::Multiaddr;
use prost::Message;

use crate::p2p::length_delimited;

/// Most addresses of a peer that are looked at.
const MAX_ADDRESSES: usize = 16;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    /// The sender is seen at these addresses.
    Connect = 100,
    /// Now.
    Sync = 300,
}

/// `HolePunch` of the protocol.
#[derive(Clone, PartialEq, Message)]
struct HolePunch {
    #[prost(enumeration = "Kind", required, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

/// Writes a message.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    addresses: &[Multiaddr],
) -> io::Result<()> {
    let message = HolePunch {
        kind: kind.into(),
        addresses: addresses.iter().map(|address| address.to_vec()).collect(),
    };
    length_delimited::write(stream, &message).await
}

/// Reads a message of this kind, and returns its addresses. Those that are none are left out.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), kind: Kind) -> io::Result<Vec<Multiaddr>> {
    let message: HolePunch = length_delimited::read(stream).await?;
    if message.kind != i32::from(kind) {
        return Err(io::Error::other(format!(
            "a message of kind {} in place of {kind:?}",
            message.kind
        )));
    }
    let addresses = message.addresses.into_iter().take(MAX_ADDRESSES);
    Ok(addresses
        .filter_map(|bytes| Multiaddr::try_from(bytes).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Memory never has to be waited for.
    fn block_on<T>(work: impl Future<Output = T>) -> T {
        work.now_or_never().expect("nothing is waited for")
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/udp/{port}/quic-v1")
            .parse()
            .expect("an address")
    }

    fn written(kind: Kind, addresses: &[Multiaddr]) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write(&mut bytes, kind, addresses)).expect("memory takes it");
        bytes
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_is_the_one_of_the_specification() {
        let bytes = written(Kind::Sync, &[]);
        assert_eq!(bytes, [3, 0x08, 0xac, 0x02], "field 1 is 300");
        assert_eq!(
            block_on(read(&mut bytes.as_slice(), Kind::Sync)).expect("it is one"),
            []
        );

        let both = [address(1), address(2)];
        let bytes = written(Kind::Connect, &both);
        assert_eq!(
            &bytes[1..5],
            [0x08, 100, 0x12, both[0].len() as u8],
            "field 2 is an address"
        );
        assert_eq!(
            block_on(read(&mut bytes.as_slice(), Kind::Connect)).expect("it is one"),
            both
        );
    }

    #[test]
    fn a_hostile_message_is_refused_and_no_more_addresses_are_taken_than_are_looked_at() {
        let refused = |bytes: &[u8], kind| block_on(read(&mut &bytes[..], kind)).is_err();
        assert!(refused(&written(Kind::Connect, &[]), Kind::Sync));
        assert!(refused(&[0x81, 0x20], Kind::Connect), "one byte more than may be");
        assert!(refused(&[0xff, 0xff, 0xff, 0x7f], Kind::Connect));
        assert!(refused(&[4, 0x08, 0xff], Kind::Connect), "it ends too early");
        assert!(refused(&[2, 0xff, 0xff], Kind::Connect));

        let many: Vec<_> = (1..100).map(address).collect();
        let taken = block_on(read(&mut written(Kind::Connect, &many).as_slice(), Kind::Connect));
        assert_eq!(taken.expect("it is one"), many[..MAX_ADDRESSES]);

        let odd = HolePunch {
            kind: Kind::Connect.into(),
            addresses: vec![vec![0xff; 40], address(1).to_vec()],
        };
        let taken = block_on(read(
            &mut odd.encode_length_delimited_to_vec().as_slice(),
            Kind::Connect,
        ));
        assert_eq!(taken.expect("it is one"), [address(1)]);
    }
}
