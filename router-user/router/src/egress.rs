//! What waits for a stream, and how it gets there.

pub mod in_hand;
pub mod outbox;
pub mod streams;
pub mod turn_batches;
