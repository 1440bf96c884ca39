//! One test for each thing that the router promises, named after it.

#[path = "support/memory_pool.rs"]
mod memory_pool;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use memory_pool::{LIMIT, MemoryPool, Peers, address, by_flow, packet, until};
use stream_router::{DispatchError, StreamRouter, StreamRouterConfig, StreamRouterConfigBuilder};

const OFTEN: Duration = Duration::from_millis(100);

async fn router(config: StreamRouterConfigBuilder) -> (StreamRouter, MemoryPool, Peers) {
    let (pool, peers) = (MemoryPool::default(), Peers::new(3));
    let config = config.build().expect("a valid configuration");
    let router = StreamRouter::new(config, pool.clone(), peers.clone());
    router.resolve(address(0)).await.expect("an owner");
    (router, pool, peers)
}

async fn insist(router: &StreamRouter, packet: &[u8]) {
    while let Err(error) = router.dispatch_packet(packet) {
        assert!(
            matches!(
                error,
                DispatchError::QueueFull { .. } | DispatchError::PeerBusy { .. }
            ),
            "{error}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends packets of new flows until `done`.
async fn load(router: &StreamRouter, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LIMIT;
    for flow in (0..u16::MAX / 2).cycle() {
        if done() {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{what}: not within {LIMIT:?}"
        );
        insist(router, &packet(0, flow, 0)).await;
        if flow % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn every_parameter_has_the_default_that_is_written() {
    let config = StreamRouterConfig::default();
    let (streams, workers, connections) = (config.streams(), config.workers(), config.connections());
    let (of_streams, of_workers) = (streams.scaling(), workers.scaling());
    let seconds = Duration::from_secs;

    assert_eq!((of_streams.scaler.min, of_streams.scaler.max), (1, 10));
    assert_eq!(
        (of_streams.scaler.scale_up, of_streams.scaler.scale_down),
        (0.8, 0.3)
    );
    assert_eq!(of_streams.interval, seconds(5));
    assert_eq!((of_workers.scaler.min, of_workers.scaler.max), (4, 32));
    assert_eq!((workers.initial(), workers.queue_size()), (8, 1000));
    assert_eq!(of_workers.interval, seconds(5));
    assert_eq!(
        (of_workers.scaler.scale_up, of_workers.scaler.scale_down),
        (0.75, 0.25)
    );
    assert_eq!(
        (connections.ttl(), connections.cleanup_interval()),
        (seconds(5), seconds(5))
    );
    assert_eq!(connections.shards(), 16);
}

#[tokio::test]
async fn minimal_stream_usage_starts_with_just_1_stream_per_peer() {
    let (router, pool, peers) = router(StreamRouterConfig::builder()).await;
    assert_eq!(pool.n_opened(), 0);

    for flow in 0..200 {
        insist(&router, &packet(0, flow, 0)).await;
    }
    until("they arrive", || pool.received().len() == 200).await;

    assert_eq!(pool.n_opened(), 1);
    assert_eq!(router.list_streams(peers.ids[0]).len(), 1);
}

#[tokio::test]
async fn throughput_based_stream_scaling_adds_and_removes_streams() {
    let config = StreamRouterConfig::builder()
        .throughput_threshold(50)
        .scaling_interval(OFTEN)
        .connection_ttl(OFTEN)
        .cleanup_interval(OFTEN);
    let (router, pool, peers) = router(config).await;
    let peer = peers.ids[0];

    load(&router, "three streams", || router.list_streams(peer).len() >= 3).await;
    until("one stream is left", || router.list_streams(peer).len() == 1).await;

    assert_eq!(router.stats().peers[0].n_lost, 0);
    assert!(pool.n_opened() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamic_worker_scaling_adjusts_the_number_of_workers_by_queue_utilization() {
    let config = StreamRouterConfig::builder()
        .min_workers(1)
        .initial_workers(2)
        .max_workers(4)
        .worker_queue_size(128)
        .worker_scale_interval(OFTEN)
        .worker_scale_up_threshold(0.02)
        .worker_scale_down_threshold(0.01);
    let (router, pool, _) = router(config).await;
    pool.discard();
    until("one worker is left of idle ones", || {
        router.stats().n_workers == 1
    })
    .await;

    let packets: Vec<_> = (0..200).map(|flow| packet(0, flow, 0)).collect();
    let deadline = std::time::Instant::now() + LIMIT;
    while router.stats().n_workers < 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "no more workers within {LIMIT:?}"
        );
        // Full queues are what is wanted.
        router.dispatch_batch(packets.iter().map(Vec::as_slice), |_, _| {});
    }

    until("one worker is left again", || router.stats().n_workers == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_affinity_packets_of_one_connection_are_processed_sequentially() {
    let (router, pool, _) = router(StreamRouterConfig::builder()).await;
    for number in 0..2000 {
        for flow in 0..10 {
            insist(&router, &packet(0, flow, number)).await;
        }
        if number % 100 == 0 {
            router.set_workers(4 + number / 100).await;
            router.set_streams(1 + number / 200).await;
        }
    }
    assert!(router.shutdown(LIMIT).await.closed);

    let flows = by_flow(&pool.received());
    assert_eq!(flows.len(), 10);
    assert!(flows.values().all(|numbers| numbers.iter().copied().eq(0..2000)));
}

#[tokio::test]
async fn a_connection_stays_on_one_stream_while_streams_are_added() {
    let (router, pool, _) = router(StreamRouterConfig::builder()).await;
    for round in 0..10 {
        router.set_streams(1 + round).await;
        for flow in 0..50 {
            insist(&router, &packet(0, flow, round)).await;
        }
        for flow in 100 * (round as u16 + 1)..100 * (round as u16 + 2) {
            insist(&router, &packet(0, flow, 0)).await;
        }
        tokio::task::yield_now().await;
    }
    assert!(router.shutdown(LIMIT).await.closed);

    let mut streams = HashMap::<u16, HashSet<usize>>::new();
    for received in pool.received() {
        let flow = u16::from_be_bytes([received.packet[28], received.packet[29]]);
        streams.entry(flow).or_default().insert(received.stream);
    }
    assert!(streams.values().all(|streams| streams.len() == 1));
    assert!(pool.n_opened() > 1);
}

#[tokio::test]
async fn efficient_connection_management_forgets_one_time_connections_soon() {
    let config = StreamRouterConfig::builder()
        .connection_ttl(OFTEN)
        .cleanup_interval(OFTEN);
    let (router, ..) = router(config).await;
    load(&router, "some flows are counted", || router.stats().n_flows > 0).await;

    until("they are forgotten", || router.stats().n_flows == 0).await;
}

#[tokio::test]
async fn connections_are_assigned_to_all_workers_by_hashing() {
    let (router, pool, _) = router(StreamRouterConfig::builder().worker_queue_size(128)).await;

    // More than half of all queues together can be filled only if flows spread over most of them.
    let n_taken = (0..4000)
        .filter(|flow| router.dispatch_packet(&packet(0, *flow, 0)).is_ok())
        .count();

    assert_eq!(n_taken, 8 * 128);
    assert!(router.shutdown(LIMIT).await.closed);
    assert_eq!(pool.received().len(), n_taken);
}

#[tokio::test]
async fn metrics_are_updated_for_scaling_decisions() {
    let (router, pool, peers) = router(StreamRouterConfig::builder()).await;
    for flow in 0..10 {
        insist(&router, &packet(0, flow, 0)).await;
    }
    assert_eq!(router.stats().n_waiting, 10);
    until("they arrive", || pool.received().len() == 10).await;
    until("they are counted", || router.stats().n_processed == 10).await;

    let stats = router.stats();

    assert_eq!(
        (stats.n_waiting, stats.n_workers, stats.n_retired_workers),
        (0, 8, 0)
    );
    let peer = &stats.peers[0];
    assert_eq!(
        (peer.peer, peer.n_accepted, peer.n_written),
        (peers.ids[0], 10, 10)
    );
    assert_eq!(peer.n_written_bytes, 10 * (16 + 34));
}

#[tokio::test]
async fn stream_reuse_keeps_below_the_most_streams_whatever_the_load() {
    let config = StreamRouterConfig::builder()
        .throughput_threshold(1)
        .scaling_interval(OFTEN)
        .max_streams_per_peer(3);
    let (router, pool, peers) = router(config).await;

    load(&router, "all streams", || {
        router.list_streams(peers.ids[0]).len() == 3
    })
    .await;
    let before = pool.received().len();
    load(&router, "more load", || pool.received().len() > before + 5000).await;

    assert_eq!(pool.n_opened(), 3);
}

#[tokio::test]
async fn peer_discovery_resolves_destinations_to_peers() {
    let (router, pool, peers) = router(StreamRouterConfig::builder()).await;
    assert_eq!(router.resolve(address(1)).await, Ok(peers.ids[1]));
    insist(&router, &packet(0, 1, 0)).await;
    insist(&router, &packet(1, 1, 0)).await;
    assert!(router.shutdown(LIMIT).await.closed);

    let of: HashSet<_> = pool.received().iter().map(|received| received.peer).collect();
    assert_eq!(of, HashSet::from([peers.ids[0], peers.ids[1]]));
}

#[tokio::test]
async fn dispatching_returns_an_error_that_can_be_handled() {
    let (router, ..) = router(StreamRouterConfig::builder()).await;

    let error = router.dispatch_packet(b"no packet").unwrap_err();

    assert_eq!(error.to_string(), "not one whole IP packet: truncated");
}
