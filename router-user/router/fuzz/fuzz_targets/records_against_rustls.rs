//! What we seal, rustls opens, and what rustls seals, we open: in both roles, in pieces of any size, over any changes of
//! the key. Where a byte is changed on the way, what was opened is the begin of what was sealed, and the connection ends.
#![no_main]

mod p2p;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| p2p::transport::tls::against_rustls::run(bytes));
