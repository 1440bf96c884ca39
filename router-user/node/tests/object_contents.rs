//! What the eBPF object holds; needs no privilege.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

use std::collections::BTreeSet;

use object::{File, Object, ObjectSection, ObjectSymbol};

use router_common::{ABI_VERSION, names};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stream-router.o"));

#[test]
fn object_has_a_classifier_for_egress_and_a_program_for_frames_of_several_buffers() {
    assert_eq!(
        global_symbols("classifier"),
        BTreeSet::from([names::PROGRAM_EGRESS.into()])
    );
    assert_eq!(
        global_symbols("xdp.frags"),
        BTreeSet::from([names::PROGRAM_GATEWAY.into()])
    );
}

#[test]
fn object_has_exactly_the_maps_that_have_names() {
    let expected = [
        names::CONNECTIONS,
        names::FRAGMENTS,
        names::SLOTS,
        names::PEERS,
        names::PRESSURE,
        names::RINGS,
        names::WAKE,
        names::COUNTERS,
        names::SETTINGS,
        names::GATEWAYS,
        names::SOCKETS,
    ];

    assert_eq!(global_symbols(".maps"), expected.map(String::from).into());
}

#[test]
fn bpftool_shows_every_name_whole() {
    /// `BPF_OBJ_NAME_LEN` of the kernel, without the NUL.
    const MAX_NAME_LEN: usize = 15;

    for section in [".maps", "classifier", "xdp.frags"] {
        for name in global_symbols(section) {
            assert!(name.len() <= MAX_NAME_LEN, "{name}");
        }
    }
}

#[test]
fn object_states_the_abi_version_of_this_crate() {
    assert_eq!(section("stream_router_abi"), ABI_VERSION.to_le_bytes());
}

#[test]
fn object_has_a_licence_that_the_helpers_accept() {
    assert_eq!(section("license"), b"Dual MIT/GPL\0");
}

#[test]
fn object_describes_its_types_and_lines_in_btf() {
    const MAGIC: [u8; 2] = 0xeb9f_u16.to_le_bytes();

    assert!(section(".BTF").starts_with(&MAGIC));
    assert!(section(".BTF.ext").starts_with(&MAGIC));
}

#[test]
fn object_calls_nothing_that_is_not_in_it() {
    let file = File::parse(OBJECT).unwrap();
    let missing: Vec<_> = file.symbols().filter(|symbol| symbol.is_undefined()).collect();

    assert!(missing.is_empty(), "{missing:?}");
}

fn section(name: &str) -> Vec<u8> {
    let file = File::parse(OBJECT).unwrap();
    let section = file.section_by_name(name).unwrap();
    section.data().unwrap().to_vec()
}

fn global_symbols(section: &str) -> BTreeSet<String> {
    let file = File::parse(OBJECT).unwrap();
    let index = file.section_by_name(section).unwrap().index();
    let symbols = file.symbols();
    symbols
        .filter(|symbol| symbol.section_index() == Some(index) && symbol.is_global())
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect()
}
