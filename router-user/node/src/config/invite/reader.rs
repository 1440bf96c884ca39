//! Reads the bytes of an invite whose checksum fits. What does not make sense here was written by another program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::error::InviteError;
use super::format::{FAMILY_V4, FAMILY_V6, KIND_DNS, KIND_DNS4, KIND_DNSADDR, KIND_QUIC, KIND_TLS, KIND_V6};

/// The bytes that are not read yet.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, InviteError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn id(&mut self) -> Result<PeerId, InviteError> {
        let len = self.byte()?;
        let bytes = self.take(len.into())?;
        PeerId::from_bytes(bytes).map_err(|error| wrong(format!("its peer id is none: {error}")))
    }

    pub(super) fn address(&mut self) -> Result<Multiaddr, InviteError> {
        let kind = self.byte()?;
        if kind & KIND_DNS != 0 {
            return self.dns_address(kind);
        }
        if kind & !(KIND_V6 | KIND_QUIC | KIND_TLS) != 0 {
            return Err(unknown(kind));
        }
        let ip = if kind & KIND_V6 != 0 {
            IpAddr::from(self.array::<16>()?)
        } else {
            IpAddr::from(self.array::<4>()?)
        };
        self.with_port(Multiaddr::from(ip), kind)
    }

    fn dns_address(&mut self, kind: u8) -> Result<Multiaddr, InviteError> {
        let name = self.name()?.into();
        let first = match kind & !(KIND_DNS | KIND_QUIC | KIND_TLS) {
            0 => Protocol::Dns(name),
            KIND_DNS4 => Protocol::Dns4(name),
            KIND_V6 => Protocol::Dns6(name),
            KIND_DNSADDR => return Ok(Protocol::Dnsaddr(name).into()),
            _ => return Err(unknown(kind)),
        };
        self.with_port(first.into(), kind)
    }

    fn with_port(&mut self, host: Multiaddr, kind: u8) -> Result<Multiaddr, InviteError> {
        let port = u16::from_be_bytes(self.array()?);
        Ok(if kind & KIND_QUIC != 0 {
            host.with(Protocol::Udp(port)).with(Protocol::QuicV1)
        } else {
            let tcp = host.with(Protocol::Tcp(port));
            match kind & KIND_TLS {
                0 => tcp,
                _ => tcp.with(Protocol::Tls),
            }
        })
    }

    pub(super) fn prefix(&mut self) -> Result<IpNet, InviteError> {
        let [family, len] = self.array()?;
        let bytes = self.take(usize::from(len.div_ceil(8)))?;
        let too_long = || wrong(format!("it has a prefix of {len} bits"));
        let ip = match family {
            FAMILY_V4 => IpAddr::from(Ipv4Addr::from(filled::<4>(bytes).ok_or_else(too_long)?)),
            FAMILY_V6 => IpAddr::from(Ipv6Addr::from(filled::<16>(bytes).ok_or_else(too_long)?)),
            _ => {
                return Err(wrong(format!(
                    "it has a prefix of family {family}, which is unknown"
                )));
            }
        };
        IpNet::new(ip, len).map_err(|_too_long| too_long())
    }

    pub(super) fn name(&mut self) -> Result<String, InviteError> {
        let len = self.byte()?;
        let name = self.take(len.into())?.to_vec();
        String::from_utf8(name).map_err(|_no_text| wrong("its name is no text".to_owned()))
    }

    pub(super) fn finish(&self) -> Result<(), InviteError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(wrong("it goes on behind its end".to_owned()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InviteError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or_else(ends)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], InviteError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(ends)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Returns the bytes with zeros behind them; `None` if there are more.
fn filled<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut filled = [0; N];
    filled.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(filled)
}

fn unknown(kind: u8) -> InviteError {
    wrong(format!("it has an address of kind {kind}, which is unknown"))
}

fn ends() -> InviteError {
    wrong("it ends before its end".to_owned())
}

fn wrong(wrong: String) -> InviteError {
    InviteError::Content { wrong }
}
