//! Whatever an authenticated peer seals, and whatever comes unsealed, the connection opens what is content, bounds what
//! it keeps, and ends in order or with an error.
#![no_main]

mod p2p;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| p2p::transport::tls::hostile::run(bytes));
