//! What waits for a stream, and who writes it: one data path for every front.
//!
//! 1. A worker lays frames into [`turn_batches`], one pair of batches for each stream.
//! 2. Full batches, and all of them at the end of a turn, go to the [`outbox`] of the stream's [lane](lanes).
//! 3. The lane's [`sender`] writes the outbox, one batch at a time, to a stream that it opens when
//!    something waits.
//!
//! How many workers there are ([`worker_scaler`]) and how many streams a peer has ([`stream_scaler`]) follows the load.
//! A front, which is the router for embedders or a node, brings the workers' queues, the streams and the counters, by
//! small traits.

pub mod cancellation;
mod in_flight;
pub mod lane_stream;
pub mod lanes;
pub mod outbox;
pub mod pacer;
pub mod sender;
pub mod stream_scaler;
pub mod turn_batches;
pub mod worker_scaler;
