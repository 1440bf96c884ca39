//! A laboratory for Stream Router: networks of real nodes on this machine.
//!
//! The end-to-end tests, the ready network of `cargo xtask run` and the benchmarks are written with it. What packages
//! nodes is here too, as a test installs them.

pub mod dist;
pub mod lab;
