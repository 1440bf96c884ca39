//! The maps, under the names that `router_common::names` gives user space.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, XskMap};
use aya_ebpf::macros::btf_map;
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::fragment::FragmentPorts;
use router_common::gateway::{Gateway, MAX_GATEWAYS, MAX_SOCKETS};
use router_common::peer::{MAX_HOST_PREFIXES, MAX_PREFIXES, PRESSURE_WORDS};
use router_common::reason::Reason;
use router_common::settings::Settings;
use router_common::slots::{MAX_WORKERS, SLOT_COUNT};
use router_common::wake::WakeFlag;

/// Bytes of a ring in the map-in-map template; rings of other sizes fit too.
const TEMPLATE_RING_BYTES: usize = 4096;
const MAX_CONNECTIONS: usize = 262_144;
/// Packets that are under way in fragments at a time.
const MAX_FRAGMENTED: usize = 8192;

#[btf_map]
pub(crate) static CONNECTIONS: LruHashMap<FlowKey, FlowEntry, MAX_CONNECTIONS> = LruHashMap::new();

#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FlowKey, FragmentPorts, MAX_FRAGMENTED> = LruHashMap::new();

#[btf_map]
pub(crate) static SLOTS: Array<u32, { SLOT_COUNT as usize }> = Array::new();

#[btf_map]
pub(crate) static PEERS: LpmTrie<[u8; 16], u32, { (MAX_PREFIXES + MAX_HOST_PREFIXES) as usize }> =
    LpmTrie::new();

#[btf_map]
pub(crate) static PRESSURE: Array<u32, { PRESSURE_WORDS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
pub(crate) static RINGS: ArrayOfMaps<RingBuf<u8, TEMPLATE_RING_BYTES>, { MAX_WORKERS as usize }> =
    ArrayOfMaps::new();

#[btf_map]
pub(crate) static WAKE: Array<WakeFlag, { MAX_WORKERS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { Reason::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub(crate) static GATEWAYS: HashMap<u32, Gateway, { MAX_GATEWAYS as usize }> = HashMap::new();

#[btf_map]
pub(crate) static SOCKETS: XskMap<{ MAX_SOCKETS as usize }> = XskMap::new();
