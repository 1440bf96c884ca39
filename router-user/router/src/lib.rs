//! Routes IP packets to peers over streams, in order for each flow: the library of a router that programs embed.
//!
//! A program brings its packets, and says where streams come from ([`StreamPool`]) and whose an address is
//! ([`PeerDiscovery`]). The [`StreamRouter`] does the rest: it keeps each flow on one worker and one stream, adds and
//! retires workers and streams by load, and writes what it took.
//!
//! # The side that sends
//! ```
//! use std::time::Duration;
//!
//! use futures::future::BoxFuture;
//! use stream_router::discovery::StaticDiscovery;
//! use stream_router::{DispatchError, PeerId, PoolError, StreamPool, StreamRouter, StreamRouterConfig};
//!
//! /// A pool whose streams keep nothing. A real one opens connections here.
//! struct Pool;
//!
//! impl StreamPool for Pool {
//!     type Stream = futures::io::Sink;
//!
//!     fn open(&self, _peer: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
//!         Box::pin(async { Ok(futures::io::sink()) })
//!     }
//!
//!     fn list(&self, _peer: PeerId) -> Vec<String> {
//!         Vec::new()
//!     }
//! }
//!
//! /// An IPv4 header alone, from 10.0.0.1 to 10.0.0.2.
//! const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let peer: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse()?;
//!     // Or a `PeerDiscovery` of one's own, asked once for each network that it answers for.
//!     let discovery = StaticDiscovery::new([("10.0.0.0/8".parse()?, peer)]);
//!     let config = StreamRouterConfig::builder()
//!         .max_workers(16)
//!         .connection_ttl(Duration::from_secs(30))
//!         .build()?;
//!     let router = StreamRouter::new(config, Pool, discovery);
//!
//!     let mut result = router.dispatch_packet(&PACKET);
//!     if let Err(DispatchError::Resolving { destination }) = result {
//!         // The first packet to an address: it is not known yet whose it is.
//!         router.resolve(destination).await?;
//!         result = router.dispatch_packet(&PACKET);
//!     }
//!     result?;
//!
//!     let report = router.shutdown(Duration::from_secs(10)).await;
//!     assert!(report.closed && report.n_written == 1);
//!     Ok(())
//! }
//! ```
//!
//! # The side that receives
//! A stream carries frames, which [`receive::Decoder`] reads; [`receive::admit`] says whether the packet in one may come
//! from that peer. See [`receive`].
//!
//! # Features
//! | feature | what it brings |
//! |---|---|
//! | `libp2p` (default) | the module `p2p`: the network of the node as a pool (`NetworkHandle`), its identity; `DhtDiscovery` and `MdnsDiscovery` |
//!
//! Without it (`default-features = false`) a program brings its own pool, and the library has 57 packages in its tree,
//! itself among them, as `cargo tree -p stream-router --no-default-features -e normal --prefix none` lists them, each
//! counted once. [`PeerId`] is the same type with and without, that of libp2p. The stable compiler builds both.
//!
//! # Modules
//! What most programs need stands here; the modules hold the rest. Inside, a module uses only those that come before it:
//! `config`, `egress`, [`receive`], `p2p`, [`discovery`], [`router`], on top of the engine, which decides and does no I/O.

pub mod config;
pub mod discovery;
#[doc(hidden)]
pub mod egress;
#[cfg(feature = "libp2p")]
pub mod p2p;
pub mod receive;
pub mod router;

pub use libp2p_identity::PeerId;

pub use config::{FieldProblem, StreamRouterConfig, StreamRouterConfigBuilder, StreamRouterConfigError};
pub use discovery::{Answer, DiscoveryError, PeerDiscovery};
pub use egress::lane_stream::{LaneId, LaneStream};
pub use router::{
    DispatchError, PeerStats, PoolError, RefusedPackets, RouterStats, ShutdownReport, StreamPool,
    StreamRouter,
};
