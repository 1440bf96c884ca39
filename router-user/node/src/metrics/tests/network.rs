//! The metrics of libp2p stand beside the node's.

use libp2p::core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p::metrics::{Metrics, Recorder};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{PeerId, ping};

use super::*;

/// Metrics of libp2p after a connection came, was measured and went.
pub(super) fn recorded() -> Registry {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
    let endpoint = ConnectedPoint::Dialer {
        address: "/ip4/192.0.2.2/tcp/4001".parse().expect("an address"),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    metrics.record(&SwarmEvent::<()>::ConnectionEstablished {
        peer_id: peer,
        connection_id: connection,
        endpoint: endpoint.clone(),
        num_established: std::num::NonZeroU32::MIN,
        concurrent_dial_errors: None,
        established_in: Duration::from_millis(3),
    });
    metrics.record(&ping::Event {
        peer,
        connection,
        result: Ok(Duration::from_millis(2)),
    });
    metrics.record(&SwarmEvent::<()>::ConnectionClosed {
        peer_id: peer,
        connection_id: connection,
        endpoint,
        num_established: 0,
        cause: None,
    });
    registry
}

#[test]
fn libp2p_s_own_metrics_are_exported_without_addresses() {
    let sources = MetricsSources {
        others: Arc::new(recorded()),
        ..sources(CheckState::Ok)
    };

    let text = collect::open_metrics(&sources).unwrap();

    let families = lint(&text);
    assert_eq!(
        families["libp2p_swarm_connections_established_total"].n_samples,
        1
    );
    assert!(text.contains("\nlibp2p_ping_rtt_seconds_count 1\n"), "{text}");
    assert!(text.contains("protocols=\"/ip4/tcp\""), "{text}");
    assert!(!text.contains("192.0.2.2"), "{text}");
}
