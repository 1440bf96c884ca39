//! The prefix table: which destinations belong to which peer.

use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use ipnet::IpNet;

use super::error::KernelError;
use super::maps::{lock, map_failed, share};
use router_common::names;
use stream_router_engine::prefix_steps::PrefixStep;

type Trie = LpmTrie<MapData, [u8; 16], u32>;

/// The prefixes that the programs know, each with the index of its peer or [`router_common::peer::NO_PEER`].
pub struct KernelPrefixes {
    written: Mutex<Trie>,
    /// The trie again, for readers, who take long and keep no writer waiting.
    read: Trie,
}

impl KernelPrefixes {
    /// Takes the table out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let Some(Map::LpmTrie(data)) = ebpf.take_map(names::PEERS) else {
            return Err(KernelError::Missing { name: names::PEERS });
        };
        let open = |data| Trie::try_from(Map::LpmTrie(data)).map_err(map_failed("open", names::PEERS));
        let read = open(share(&data, names::PEERS)?)?;
        Ok(Self {
            written: Mutex::new(open(data)?),
            read,
        })
    }

    /// Tells the programs which destinations belong to which peer, by index.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn add(&self, prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Result<(), KernelError> {
        let steps = prefixes
            .into_iter()
            .map(|(prefix, peer)| PrefixStep::Write(prefix, peer));
        self.change(steps)
    }

    /// Takes `steps` in the table, in their order. What flows have looked up stays until
    /// [`KernelSettings::renew_peers`](super::KernelSettings::renew_peers).
    ///
    /// # Errors
    /// The table cannot be written; the steps before that one are taken.
    pub fn change(&self, steps: impl IntoIterator<Item = PrefixStep>) -> Result<(), KernelError> {
        let mut table = lock(&self.written);
        for step in steps {
            let done = match step {
                PrefixStep::Write(prefix, owner) => table.insert(&key_of(prefix), owner, 0),
                PrefixStep::Remove(prefix) => match table.remove(&key_of(prefix)) {
                    // Gone already.
                    Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
                        Ok(())
                    }
                    done => done,
                },
            };
            done.map_err(map_failed("write", names::PEERS))?;
        }
        Ok(())
    }

    /// Reads the whole table, which takes a few microseconds for each prefix.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Vec<(IpNet, u32)>, KernelError> {
        let entry = |entry: Result<(Key<[u8; 16]>, u32), MapError>| {
            let (key, peer) = entry.map_err(map_failed("read", names::PEERS))?;
            Ok(prefix_of(&key).map(|prefix| (prefix, peer)))
        };
        self.read
            .iter()
            .map(entry)
            .filter_map(Result::transpose)
            .collect()
    }
}

fn key_of(prefix: IpNet) -> Key<[u8; 16]> {
    let (len, address) = match prefix {
        IpNet::V4(net) => (96 + net.prefix_len(), net.network().to_ipv6_mapped()),
        IpNet::V6(net) => (net.prefix_len(), net.network()),
    };
    Key::new(u32::from(len), address.octets())
}

/// Inverts [`key_of`]; `None` for lengths that no prefix has, and that the kernel does not take.
fn prefix_of(key: &Key<[u8; 16]>) -> Option<IpNet> {
    let (address, len) = (Ipv6Addr::from(key.data()), u8::try_from(key.prefix_len()).ok()?);
    match address.to_ipv4_mapped() {
        Some(address) if len >= 96 => IpNet::new(address.into(), len - 96).ok(),
        _ => IpNet::new(address.into(), len).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_back_from_their_keys() {
        for prefix in [
            "0.0.0.0/0",
            "10.42.0.0/24",
            "10.42.0.2/32",
            "::/0",
            "fd42::/64",
            "fd42::2/128",
        ] {
            let prefix: IpNet = prefix.parse().unwrap();
            assert_eq!(prefix_of(&key_of(prefix)), Some(prefix));
        }
    }
}
