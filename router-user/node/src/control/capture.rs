//! Captures over the control socket: what is asked for, and the pcapng that answers.

mod client;
mod decode;
mod encode;
mod packet;
mod query;

use std::pin::Pin;

use axum::body::Bytes;
use futures::Stream;

pub use client::CaptureReader;
pub use decode::{CaptureBlock, CaptureBlocks, CaptureRecord, MAX_CAPTURE_BLOCK_LEN};
pub(crate) use encode::CaptureEncoder;
pub use packet::{CaptureDirection, CapturedPacket};
pub(crate) use query::parse_snaplen;
pub use query::{CaptureDirections, CaptureQuery, MAX_SNAPLEN};

/// Path at which captures are requested.
pub const CAPTURE_PATH: &str = "/v1/capture";

/// Content type of the answer.
pub const CAPTURE_CONTENT_TYPE: &str = "application/x-pcapng";

/// The pcapng of a running capture, in pieces; dropping it ends the capture.
pub type CaptureStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
