//! What user space reads and writes of the programs' maps.

use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapError};
use ipnet::IpNet;

use super::bpf::TypedMap;
use super::error::KernelError;
use super::flow_reader::FlowReader;
use super::flow_table::FlowTable;
use super::maps::{PRESSURE_STRIDE, map, map_failed, share};
use super::object::Kernel;
use super::ring::RingConsumer;
use router_common::names;
use router_common::reason::Reason;
use stream_router_engine::slots::SlotChange;

impl Kernel {
    /// Tells the programs which destinations belong to which peer, by index.
    ///
    /// # Errors
    /// The prefix table cannot be written.
    pub fn add_prefixes(&self, prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        let mut table: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map(&mut ebpf, names::PEERS)?).map_err(map_failed("open", names::PEERS))?;
        for (prefix, peer) in prefixes {
            table
                .insert(&prefix_key(prefix), peer, 0)
                .map_err(map_failed("write", names::PEERS))?;
        }
        Ok(())
    }

    /// Gives slots to workers; each of them needs a ring first.
    ///
    /// # Errors
    /// The slot table cannot be written.
    pub fn write_slots(&self, changes: impl IntoIterator<Item = SlotChange>) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        let mut table: Array<_, u32> =
            Array::try_from(map(&mut ebpf, names::SLOTS)?).map_err(map_failed("open", names::SLOTS))?;
        for SlotChange { slot, worker } in changes {
            table
                .set(slot, worker, 0)
                .map_err(map_failed("write", names::SLOTS))?;
        }
        Ok(())
    }

    /// Makes the ring of `worker`.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn open_ring(&self, worker: u32) -> Result<RingConsumer, KernelError> {
        let bytes = self.ring_bytes;
        let ring =
            RingConsumer::new(worker, bytes, self.wake.clone()).map_err(|source| KernelError::Ring {
                worker,
                bytes,
                source,
            })?;
        let mut ebpf = self.lock();
        let mut rings: ArrayOfMaps<_> =
            ArrayOfMaps::try_from(map(&mut ebpf, names::RINGS)?).map_err(map_failed("open", names::RINGS))?;
        rings
            .set(worker, ring.map(), 0)
            .map_err(map_failed("write", names::RINGS))?;
        Ok(ring)
    }

    /// Takes the ring of `worker` from the programs: when this returns, none of them writes to it any more. Its
    /// consumer keeps what is in it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close_ring(&self, worker: u32) -> Result<(), KernelError> {
        let ebpf = self.lock();
        let Some(Map::ArrayOfMaps(rings)) = ebpf.map(names::RINGS) else {
            return Err(KernelError::Missing { name: names::RINGS });
        };
        // The value of a map of maps is a descriptor.
        let rings = TypedMap::<u32, u32>::new(rings.fd().as_fd());
        let closed = rings.and_then(|rings| rings.delete(&worker));
        closed.map_err(|source| KernelError::Map {
            action: "write",
            map: names::RINGS,
            source: source.into(),
        })
    }

    /// Returns the connection table, in which flows idle for longer than `ttl` are gone.
    ///
    /// # Errors
    /// Its descriptor cannot be duplicated.
    pub fn flow_table(&self, ttl: Duration) -> Result<FlowTable, KernelError> {
        FlowTable::new(&self.connections()?, ttl).map_err(map_failed("open", names::CONNECTIONS))
    }

    /// Returns a reader of the flows that are live now.
    ///
    /// # Errors
    /// The table's descriptor cannot be duplicated.
    pub fn flows(&self, ttl: Duration) -> Result<FlowReader, KernelError> {
        FlowReader::new(&self.connections()?, ttl).map_err(map_failed("open", names::CONNECTIONS))
    }

    /// The prefix table: each prefix with the index of its peer, or [`router_common::peer::NO_PEER`]. Takes a few
    /// microseconds for each prefix.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn prefixes(&self) -> Result<Vec<(IpNet, u32)>, KernelError> {
        let data = {
            let ebpf = self.lock();
            let Some(Map::LpmTrie(prefixes)) = ebpf.map(names::PEERS) else {
                return Err(KernelError::Missing { name: names::PEERS });
            };
            share(prefixes, names::PEERS)?
        };
        let table: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(Map::LpmTrie(data)).map_err(map_failed("open", names::PEERS))?;
        let entry = |entry: Result<(Key<[u8; 16]>, u32), MapError>| {
            let (key, peer) = entry.map_err(map_failed("read", names::PEERS))?;
            Ok(prefix_of(&key).map(|prefix| (prefix, peer)))
        };
        table.iter().map(entry).filter_map(Result::transpose).collect()
    }

    fn connections(&self) -> Result<MapData, KernelError> {
        let ebpf = self.lock();
        let Some(Map::LruHashMap(connections)) = ebpf.map(names::CONNECTIONS) else {
            return Err(KernelError::Missing {
                name: names::CONNECTIONS,
            });
        };
        share(connections, names::CONNECTIONS)
    }

    /// A switch that tells the programs whether to hold back packets for `peer`.
    pub fn pressure_switch(&self, peer: u32) -> impl Fn(bool) + Send + Sync + use<> {
        let pressure = self.pressure.clone();
        move |pressed| {
            if let Some(flag) = pressure.half_word(peer as usize * PRESSURE_STRIDE) {
                flag.store(pressed.into(), Relaxed);
            }
        }
    }

    /// Packets by reason, from the start.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let read = |reason: Reason| {
            let per_cpu = self
                .counters
                .get(&(reason as u32), 0)
                .map_err(map_failed("read", names::COUNTERS))?;
            Ok((reason, per_cpu.iter().sum()))
        };
        Reason::ALL.into_iter().map(read).collect()
    }
}

pub(super) fn prefix_key(prefix: IpNet) -> Key<[u8; 16]> {
    let (len, address) = match prefix {
        IpNet::V4(net) => (96 + net.prefix_len(), net.network().to_ipv6_mapped()),
        IpNet::V6(net) => (net.prefix_len(), net.network()),
    };
    Key::new(u32::from(len), address.octets())
}

/// The inverse of [`prefix_key`]; none for lengths that no prefix has.
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
            assert_eq!(prefix_of(&prefix_key(prefix)), Some(prefix));
        }
    }
}
