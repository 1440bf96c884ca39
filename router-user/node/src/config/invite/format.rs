//! The markers and limits of an invite's format.

use crate::config::name::MAX_NAME_LEN;

/// What every invite starts with, whatever its version.
pub(super) const MAGIC: &str = "sr";
/// Version of an invite to a node without a name.
pub(super) const VERSION: char = '1';
/// Version of an invite to a node that has one.
pub(super) const VERSION_NAMED: char = '2';
/// Version of an invite to a node, with a name or without, of which an address begins with a name in DNS.
pub(super) const VERSION_DNS: char = '3';
/// Version of an invite to a node that relays for its peers, whatever its name and addresses.
pub(super) const VERSION_RELAY: char = '4';
pub(super) const CHECKSUM_LEN: usize = 4;

/// Most addresses in an invite; more would be dialled one after the other for minutes.
pub(super) const MAX_ADDRESSES: usize = 16;
/// Most prefixes in an invite; a node with more of them has a configuration that is written by hand.
pub(super) const MAX_PREFIXES: usize = 64;
/// Longest invite.
pub(super) const MAX_CHARS: usize = 7424;
/// Longest peer id: a multihash of a key of 42 bytes, which stands in it as it is.
const MAX_ID_LEN: usize = 2 + 42;
/// Longest name in DNS, with a dot at its end.
pub(super) const MAX_DNS_NAME_LEN: usize = 254;
/// Kind, length of the name, name, port.
const ADDRESS_LEN: usize = 1 + 1 + MAX_DNS_NAME_LEN + 2;
/// Family, length, IPv6 address.
const PREFIX_LEN: usize = 1 + 1 + 16;
const MAX_BYTES: usize = 1
    + MAX_ID_LEN
    + 1
    + MAX_ADDRESSES * ADDRESS_LEN
    + 1
    + MAX_PREFIXES * PREFIX_LEN
    + 1
    + MAX_NAME_LEN
    + CHECKSUM_LEN;

const _: () = assert!(3 + MAX_BYTES.div_ceil(3) * 4 <= MAX_CHARS);

/// Bits of an address's kind.
pub(super) const KIND_V6: u8 = 1;
pub(super) const KIND_QUIC: u8 = 2;
/// The address begins with a name, in place of an IP address: of IPv6 addresses with [`KIND_V6`], of IPv4 addresses with
/// [`KIND_DNS4`], of both with neither, and of whole addresses, so that there is no port, with [`KIND_DNSADDR`].
pub(super) const KIND_DNS: u8 = 4;
pub(super) const KIND_DNS4: u8 = 8;
pub(super) const KIND_DNSADDR: u8 = 16;
/// The peer is greeted with TLS, over TCP.
pub(super) const KIND_TLS: u8 = 32;
/// Families of a prefix.
pub(super) const FAMILY_V4: u8 = 4;
pub(super) const FAMILY_V6: u8 = 6;
