//! The markers and limits of an invite's format.

use crate::config::name::MAX_NAME_LEN;

/// What every invite starts with, whatever its version.
pub(super) const MAGIC: &str = "sr";
/// Version of an invite to a node without a name.
pub(super) const VERSION: char = '1';
/// Version of an invite to a node that has one.
pub(super) const VERSION_NAMED: char = '2';
pub(super) const CHECKSUM_LEN: usize = 4;

/// Most addresses in an invite; more would be dialled one after the other for minutes.
pub(super) const MAX_ADDRESSES: usize = 16;
/// Most prefixes in an invite; a node with more of them has a configuration that is written by hand.
pub(super) const MAX_PREFIXES: usize = 64;
/// Longest invite.
pub(super) const MAX_CHARS: usize = 2304;
/// Longest peer id: a multihash of a key of 42 bytes, which stands in it as it is.
const MAX_ID_LEN: usize = 2 + 42;
/// Kind, IPv6 address, port.
const ADDRESS_LEN: usize = 1 + 16 + 2;
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
/// Families of a prefix.
pub(super) const FAMILY_V4: u8 = 4;
pub(super) const FAMILY_V6: u8 = 6;
