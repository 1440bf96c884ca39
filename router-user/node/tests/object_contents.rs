//! What the eBPF object holds; needs no privilege.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

use std::collections::BTreeSet;

use object::{File, Object, ObjectSection, ObjectSymbol};

use router_common::{ABI_VERSION, names};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stream-router.o"));

#[test]
fn object_has_classifiers_for_egress_and_gateways_and_a_program_for_frames_of_several_buffers() {
    assert_eq!(
        global_symbols("classifier"),
        [names::PROGRAM_EGRESS, names::PROGRAM_GATEWAY_TC]
            .map(String::from)
            .into()
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

/// A program may use 512 bytes of stack, its calls included, and verifiers before Linux 6.9 round each frame up to 32
/// bytes. What is left is for other versions of the compiler, which lay the stack out in other ways.
#[test]
fn every_program_keeps_a_quarter_of_its_stack_and_calls_nothing() {
    const LIMIT: i64 = 512 * 3 / 4;

    for section_name in ["classifier", "xdp.frags"] {
        let code = Instruction::all(&section(section_name));
        let calls = code
            .iter()
            .filter(|instruction| instruction.calls_a_function())
            .count();
        let stack = code.windows(2).filter_map(Instruction::stack_of).max();

        assert_eq!(calls, 0, "{section_name}");
        assert!(
            stack.is_some_and(|bytes| (1..=LIMIT).contains(&bytes)),
            "{section_name}: {stack:?}"
        );
    }
}

/// `struct bpf_insn` of the kernel.
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn all(section: &[u8]) -> Vec<Self> {
        let read = |bytes: &[u8; 8]| {
            let [code, registers, o0, o1, i0, i1, i2, i3] = *bytes;
            Self {
                code,
                destination: registers & 15,
                source: registers >> 4,
                offset: i16::from_le_bytes([o0, o1]),
                immediate: i32::from_le_bytes([i0, i1, i2, i3]),
            }
        };
        let (instructions, rest) = section.as_chunks();
        assert!(rest.is_empty());
        instructions.iter().map(read).collect()
    }

    /// Says whether it calls a function of the object, and no helper of the kernel.
    fn calls_a_function(&self) -> bool {
        const CALL: u8 = 0x85;
        const PSEUDO_CALL: u8 = 1;

        self.code == CALL && self.source == PSEUDO_CALL
    }

    /// Returns how far below the frame's end the first of two instructions reaches, or the two that make a pointer.
    fn stack_of(pair: &[Self]) -> Option<i64> {
        const FRAME: u8 = 10;
        const MOVE: u8 = 0xbf;
        const ADD: u8 = 0x07;

        let [first, second] = pair else { return None };
        let depth = match first.code & 7 {
            // Loads from the frame.
            1 if first.source == FRAME => i64::from(first.offset),
            // Stores to it.
            2 | 3 if first.destination == FRAME => i64::from(first.offset),
            _ if first.code == MOVE
                && first.source == FRAME
                && second.code == ADD
                && second.destination == first.destination =>
            {
                i64::from(second.immediate)
            }
            _ => return None,
        };
        Some(-depth)
    }
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
