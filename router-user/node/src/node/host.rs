//! What the node wants of the host, and that the host has it.
//!
//! 1. [`wanted`] is the value: all that the node has set up and relies on.
//! 2. [`found`] reads what the kernel has of it.
//! 3. [`compare`] says what differs, each by the [`thing`] that it is about, and what would put it back. It is pure.
//! 4. [`ways`] looks whether routes and rules of others take packets for peers elsewhere, which nothing of the node's own shows.
//! 5. [`keeper`] does that on every change that the kernel tells of, every few seconds, and at a reload, and puts back
//!    what is the node's own.
//! 6. [`ledger`] decides what of it is another's hand, what only follows from it, and when to give in.
//! 7. [`report`] is the outcome, which everything that an operator sees reads.

mod compare;
mod device_lost;
mod found;
mod keeper;
mod ledger;
mod pass;
mod report;
mod rest;
mod thing;
mod wanted;
mod watch;
mod ways;

pub use device_lost::DeviceLost;
pub(super) use keeper::Keeper;
pub(super) use report::HostReport;
pub(super) use wanted::Wanted;
pub(super) use watch::Host;
