//! What the receiving side needs: frames out of a stream's bytes, and which packets in them may enter.
//!
//! The side that opens a stream writes frames until it closes it. Each is a packet behind a header of 16 bytes: its length
//! (four bytes, little-endian), and twelve bytes of offload header, all zero unless the packet came from a TUN device
//! with offloads. An error of the [`Decoder`] means that the bytes are no frames: the stream is to be given up.
//!
//! A peer may claim any source address in a packet, so [`admit`] checks that the address is the sending peer's.
//!
//! ```
//! use futures::AsyncReadExt;
//! use stream_router::receive::{Decoder, PeerIndex, RouteTable, admit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! /// The peer whose stream this is, by its place in a table of one's own.
//! const PEER: PeerIndex = PeerIndex(0);
//! let owners = RouteTable::new([("10.0.0.1/32".parse()?, PEER)]);
//! // A frame with an IPv4 header alone, from 10.0.0.1 to 10.0.0.2.
//! let frame = [
//!     20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // the header of the frame
//!     0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
//! ];
//! let mut stream = &frame[..];
//!
//! let mut decoder = Decoder::default();
//! let mut packets = Vec::new();
//! loop {
//!     let n = stream.read(decoder.space()).await?;
//!     if n == 0 {
//!         break;
//!     }
//!     decoder.handle_read(n);
//!     for frame in decoder.frames() {
//!         let frame = frame?;
//!         match admit(&owners, PEER, &frame.vnet(), frame.packet()) {
//!             Ok(_headers) => packets.push(frame.packet().to_vec()),
//!             Err(refusal) => eprintln!("dropped: {refusal:?}"),
//!         }
//!     }
//! }
//! assert_eq!(packets, [&frame[16..]]);
//! # Ok(())
//! # })
//! # }
//! ```

pub use router_common::frame::VnetHeader;
pub use router_common::packet::{Parsed, parse};
pub use stream_router_engine::admission::{FrameRefusal, admit};
pub use stream_router_engine::framing::{DECODER_CAPACITY, Decoder, Frame, FrameError, Frames};
pub use stream_router_engine::route_table::{PeerIndex, RouteTable};
