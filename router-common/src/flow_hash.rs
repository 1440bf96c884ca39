//! The keyed hash of a flow: SipHash-1-3 over the five words of its key.
//!
//! The key is random per start, so nobody outside can aim flows at one worker.

use crate::flow_key::FlowKey;

/// Key of the hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct HashKey {
    /// First half.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }
}

#[inline(always)]
fn word(bytes: &[u8; 16], half: usize) -> u64 {
    let mut word = [0; 8];
    let mut i = 0;
    while i < 8 {
        word[i] = bytes[half * 8 + i];
        i += 1;
    }
    u64::from_le_bytes(word)
}

/// Hashes `flow`; every packet of the flow gives the same number.
#[inline(always)]
pub fn flow_hash(key: &HashKey, flow: &FlowKey) -> u32 {
    let mut state = State {
        v0: key.k0 ^ 0x736f_6d65_7073_6575,
        v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
        v2: key.k0 ^ 0x6c79_6765_6e65_7261,
        v3: key.k1 ^ 0x7465_6462_7974_6573,
    };
    state.word(word(&flow.source, 0));
    state.word(word(&flow.source, 1));
    state.word(word(&flow.destination, 0));
    state.word(word(&flow.destination, 1));
    let [s0, s1] = flow.source_port_be;
    let [d0, d1] = flow.destination_port_be;
    state.word(u64::from_le_bytes([
        s0,
        s1,
        d0,
        d1,
        flow.protocol,
        flow.family,
        0,
        0,
    ]));
    // The length byte of SipHash, in a last word of its own.
    state.word(40 << 56);
    state.v2 ^= 0xff;
    state.round();
    state.round();
    state.round();
    let hash = state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
    (hash ^ (hash >> 32)) as u32
}
