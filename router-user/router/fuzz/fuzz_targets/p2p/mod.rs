//! The modules of TLS records at the place that they have in the library, which does not show them.
#![allow(dead_code, reason = "a target uses a part of the library's sources")]

#[path = "."]
pub mod transport {
    #[path = "."]
    pub mod tls {
        #[path = "../../../src/p2p/transport/tls/connection.rs"]
        mod connection;
        #[path = "../../../src/p2p/transport/tls/handshake.rs"]
        mod handshake;
        #[path = "../../../src/p2p/transport/tls/record.rs"]
        mod record;
        mod script;

        pub mod against_rustls;
        pub mod hostile;
    }
}
