//! The network between nodes: interoperation, admission, strangers, discovery, streams, outages, departures, relays. Each test has network namespaces of its own,
//! so it needs root.

#[path = "p2p_network/admission.rs"]
mod admission;
#[path = "p2p_network/crooked_relay.rs"]
mod crooked_relay;
#[path = "p2p_network/departure.rs"]
mod departure;
#[path = "p2p_network/discovery.rs"]
mod discovery;
#[path = "p2p_network/interop.rs"]
mod interop;
#[path = "p2p_network/lanes.rs"]
mod lanes;
#[path = "p2p_network/outage.rs"]
mod outage;
#[path = "p2p_network/relay_client.rs"]
mod relay_client;
#[path = "p2p_network/relay_server.rs"]
mod relay_server;
#[path = "p2p_network/relays.rs"]
mod relays;
#[path = "p2p_network/stock.rs"]
mod stock;
#[path = "p2p_network/strangers.rs"]
mod strangers;
#[path = "p2p_network/streams.rs"]
mod streams;
#[path = "p2p_network/support.rs"]
mod support;
#[path = "support/wait.rs"]
mod wait;
#[path = "p2p_network/zones.rs"]
mod zones;
