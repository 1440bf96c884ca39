//! Captures over the control socket: what is asked for, and the stream of records that answers.

mod client;
mod query;
mod record;

use std::pin::Pin;

use axum::body::Bytes;
use futures::Stream;

pub use client::CaptureReader;
pub(crate) use query::parse_snaplen;
pub use query::{CaptureDirections, CaptureQuery, MAX_SNAPLEN};
pub use record::{CaptureDirection, CaptureRecord, CaptureRecords, CapturedPacket, MAX_CAPTURE_RECORD_LEN};
pub(crate) use record::{put_dropped, put_end, put_packet};

/// Path at which captures are requested.
pub const CAPTURE_PATH: &str = "/v1/capture";

/// Content type of the answer.
pub const CAPTURE_CONTENT_TYPE: &str = "application/x-stream-router-capture";

/// The records of a running capture, in pieces; dropping it ends the capture.
pub type CaptureStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
