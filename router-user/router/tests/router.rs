//! The router that programs embed, from outside.

#[path = "support/memory_pool.rs"]
mod memory_pool;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use proptest::prelude::*;

use memory_pool::wait::until_async;
use memory_pool::{LIMIT, MemoryPool, Peers, address, by_flow, packet, packet_to, until};
use stream_router::discovery::IpNet;
use stream_router::{
    Answer, DiscoveryError, DispatchError, PeerDiscovery, PeerId, StreamRouter, StreamRouterConfig,
};

const LITTLE: Duration = Duration::from_millis(100);

fn router(config: StreamRouterConfig) -> (StreamRouter, MemoryPool, Peers) {
    let (pool, peers) = (MemoryPool::default(), Peers::new(3));
    (
        StreamRouter::new(config, pool.clone(), peers.clone()),
        pool,
        peers,
    )
}

async fn resolve(router: &StreamRouter) {
    for peer in 0..3 {
        router.resolve(address(peer)).await.expect("an owner");
    }
}

/// Dispatches until it is taken, unless the router ends.
async fn insist(router: &StreamRouter, packet: &[u8]) -> bool {
    loop {
        match router.dispatch_packet(packet) {
            Ok(()) => return true,
            Err(DispatchError::ShuttingDown) => return false,
            Err(DispatchError::QueueFull { .. } | DispatchError::PeerBusy { .. }) => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn each_flow_keeps_its_order_while_many_tasks_dispatch_and_workers_and_streams_scale() {
    const N_TASKS: u16 = 4;
    const N_FLOWS: u16 = 8;
    const N: u32 = 3000;
    let (router, pool, _) = router(StreamRouterConfig::builder().min_workers(1).build().unwrap());
    resolve(&router).await;
    let tasks: Vec<_> = (0..N_TASKS)
        .map(|task| {
            let router = router.clone();
            tokio::spawn(async move {
                for number in 0..N {
                    for flow in 0..N_FLOWS {
                        let flow = task * N_FLOWS + flow;
                        insist(&router, &packet((flow % 3) as u8, flow, number)).await;
                    }
                }
            })
        })
        .collect();
    let scaling = {
        let router = router.clone();
        tokio::spawn(async move {
            for n in [9, 1, 32, 2, 16, 4].into_iter().cycle() {
                router.set_workers(n).await;
                router.set_streams(n.min(10)).await;
                // Dispatching goes on between.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    for task in tasks {
        tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
    }
    scaling.abort();

    let report = router.shutdown(LIMIT).await;

    assert!(report.closed && report.undelivered.is_empty(), "{report:?}");
    let flows = by_flow(&pool.received());
    assert_eq!(flows.len(), usize::from(N_TASKS * N_FLOWS));
    assert!(flows.values().all(|flow| flow.iter().copied().eq(0..N)));
    assert!(pool.n_opened() > 3, "streams have scaled: {}", pool.n_opened());
}

/// What happens to a router, in any order.
#[derive(Clone, Debug)]
enum Step {
    Dispatch(u16),
    Batch(Vec<u16>),
    Workers(u32),
    Streams(u32),
    Stall(Option<u8>),
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_u16).prop_map(Step::Dispatch),
        4 => prop::collection::vec(0..12_u16, 1..40).prop_map(Step::Batch),
        1 => (1..=8_u32).prop_map(Step::Workers),
        1 => (1..=4_u32).prop_map(Step::Streams),
        1 => prop::option::of(0..3_u8).prop_map(Step::Stall),
        3 => Just(Step::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_each_flow_arrives_in_order_and_every_packet_that_was_taken_arrives(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = StreamRouterConfig::builder()
                .min_workers(1)
                .initial_workers(2)
                .max_workers(8)
                .worker_queue_size(128)
                .build()
                .unwrap();
            let (router, pool, peers) = router(config);
            resolve(&router).await;
            let mut taken = std::collections::HashMap::<_, Vec<u32>>::new();
            let mut note = |flow: u16, number| {
                taken.entry((peers.ids[usize::from(flow % 3)], flow)).or_default().push(number);
            };
            let of = |flow: u16, number| packet((flow % 3) as u8, flow, number);
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Dispatch(flow) => {
                        number += 1;
                        if router.dispatch_packet(&of(flow, number)).is_ok() {
                            note(flow, number);
                        }
                    }
                    Step::Batch(flows) => {
                        let packets: Vec<_> = (number + 1..).zip(&flows).map(|(n, flow)| of(*flow, n)).collect();
                        let mut refused = Vec::new();
                        let n = router.dispatch_batch(packets.iter().map(Vec::as_slice), |index, _| refused.push(index));
                        assert_eq!(n + refused.len(), flows.len());
                        for (index, flow) in flows.iter().enumerate() {
                            number += 1;
                            if !refused.contains(&index) {
                                note(*flow, number);
                            }
                        }
                    }
                    Step::Workers(n) => router.set_workers(n).await,
                    Step::Streams(n) => router.set_streams(n).await,
                    Step::Stall(peer) => pool.stall(peer.map(|peer| peers.ids[usize::from(peer)])),
                    Step::Rest => for _ in 0..20 {
                        tokio::task::yield_now().await;
                    },
                }
            }
            pool.stall(None);
            let report = router.shutdown(LIMIT).await;
            assert!(report.closed && report.undelivered.is_empty(), "{report:?}");
            assert_eq!(by_flow(&pool.received()), taken);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn shutdown_during_load_loses_nothing_that_was_taken() {
    let (router, pool, _) = router(StreamRouterConfig::default());
    resolve(&router).await;
    let n_taken = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..3_u16)
        .map(|task| {
            let (router, n_taken) = (router.clone(), n_taken.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if !insist(&router, &packet(task as u8, task, number)).await {
                        return;
                    }
                    n_taken.fetch_add(1, Relaxed);
                    if number % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    until("some load", || n_taken.load(Relaxed) > 2000).await;

    let report = router.clone().shutdown(LIMIT).await;
    for task in tasks {
        tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
    }

    let n_taken = n_taken.load(Relaxed);
    assert!(report.closed && report.undelivered.is_empty(), "{report:?}");
    assert_eq!(
        (report.n_written, pool.received().len() as u64),
        (n_taken, n_taken)
    );
    assert!(router.stats().refused.shutting_down >= 3);
}

#[tokio::test]
async fn a_stalled_peer_is_refused_alone_and_shutdown_says_what_it_did_not_get() {
    let (router, pool, peers) = router(StreamRouterConfig::default());
    resolve(&router).await;
    pool.stall(Some(peers.ids[1]));
    let mut n_taken = 0;
    let error = loop {
        match router.dispatch_packet(&packet(1, 5, n_taken)) {
            Ok(()) => n_taken += 1,
            Err(DispatchError::QueueFull { .. }) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };

    assert_eq!(error, DispatchError::PeerBusy { peer: peers.ids[1] });
    assert!(insist(&router, &packet(2, 6, 0)).await);
    let report = router.shutdown(LITTLE).await;

    assert_eq!(report.undelivered, [(peers.ids[1], n_taken.into())]);
    assert_eq!((report.n_written, report.closed), (1, false));
    assert_eq!(pool.received().len(), 1);
}

#[tokio::test]
async fn each_refusal_is_a_distinct_error_with_a_counter() {
    let config = StreamRouterConfig::builder()
        .worker_queue_size(128)
        .build()
        .unwrap();
    let (router, _, peers) = router(config);
    let destination = address(0);
    let nobodys = [10, 1, 0, 1];

    let cut = &packet(0, 1, 1)[..27];
    let malformed = router.dispatch_packet(cut).unwrap_err();
    assert_eq!(
        malformed,
        DispatchError::Malformed {
            reason: "bad_total_length"
        }
    );
    let unresolved = router.dispatch_packet(&packet(0, 1, 1)).unwrap_err();
    assert_eq!(unresolved, DispatchError::Resolving { destination });
    assert_eq!(router.resolve(destination).await, Ok(peers.ids[0]));
    let unknown = DispatchError::UnknownPeer {
        destination: nobodys.into(),
    };
    assert_eq!(router.resolve(nobodys.into()).await, Err(unknown.clone()));
    assert_eq!(router.dispatch_packet(&packet_to(nobodys, 1, 1)), Err(unknown));
    // No worker runs before the next await.
    let results: Vec<_> = (0..129)
        .map(|n| router.dispatch_packet(&packet(0, 1, n)))
        .collect();
    assert!(results[..128].iter().all(Result::is_ok));
    assert!(matches!(results[128], Err(DispatchError::QueueFull { .. })));
    let clone = router.clone();
    router.shutdown(LIMIT).await;
    assert_eq!(
        clone.dispatch_packet(&packet(0, 1, 1)),
        Err(DispatchError::ShuttingDown)
    );

    let refused = clone.stats().refused;
    assert_eq!(
        (refused.malformed, refused.resolving, refused.unknown_peer),
        (1, 1, 1)
    );
    assert_eq!(
        (refused.queue_full, refused.peer_busy, refused.shutting_down),
        (1, 0, 1)
    );
}

#[tokio::test]
async fn discovery_is_asked_once_for_an_owner_and_for_nobody_and_a_failure_is_retried() {
    let (router, _, peers) = router(StreamRouterConfig::default());
    let failing = "10.2.0.1".parse().unwrap();

    for _ in 0..3 {
        assert!(router.resolve(address(0)).await.is_ok());
        assert!(router.resolve([10, 1, 0, 1].into()).await.is_err());
    }
    assert_eq!(peers.n_asked(), 2);
    for _ in 0..3 {
        let error = router.resolve(failing).await.unwrap_err();
        assert!(
            matches!(error, DispatchError::DiscoveryFailed { destination, .. } if destination == failing)
        );
        let failed = router
            .dispatch_packet(&packet_to([10, 2, 0, 1], 1, 1))
            .unwrap_err();
        assert_eq!(failed, error);
        let cause = failed.source().and_then(Error::source).expect("a cause");
        assert_eq!(cause.to_string(), "the registry is down");
    }
    assert_eq!((peers.n_asked(), router.stats().n_failed_lookups), (3, 1));
    assert_eq!(router.stats().refused.discovery_failed, 3);
    until_async("the failed question is asked again", LIMIT, async || {
        assert!(router.resolve(failing).await.is_err());
        peers.n_asked() > 3
    })
    .await;
}

/// Answers by a list of networks, the first that holds the address; counts how often it was asked.
#[derive(Clone)]
struct Networks {
    answers: Arc<Vec<(IpNet, Answer)>>,
    n_asked: Arc<AtomicU64>,
}

impl Networks {
    fn new(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers = answers.into_iter();
        Self {
            answers: Arc::new(answers.map(|(of, answer)| (net(of), answer)).collect()),
            n_asked: Arc::default(),
        }
    }
}

impl PeerDiscovery for Networks {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        self.n_asked.fetch_add(1, Relaxed);
        let answer = self.answers.iter().find(|(of, _)| of.contains(&destination));
        Box::pin(async move { Ok(answer.map_or(Answer::nobody(), |(_, answer)| *answer)) })
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

#[tokio::test]
async fn two_hundred_hosts_behind_one_peer_cost_one_look_up() {
    let site = PeerId::random();
    let discovery = Networks::new([("10.3.0.0/16", Answer::network(net("10.3.0.0/16"), site))]);
    let router = StreamRouter::new(
        StreamRouterConfig::default(),
        MemoryPool::default(),
        discovery.clone(),
    );

    for host in 1..=100 {
        assert_eq!(router.resolve([10, 3, 0, host].into()).await, Ok(site));
        let to = [10, 3, 1, host];
        while let Err(error) = router.dispatch_packet(&packet_to(to, 1, 0)) {
            assert_eq!(
                error,
                DispatchError::Resolving {
                    destination: to.into()
                }
            );
            tokio::task::yield_now().await;
        }
    }

    assert_eq!(discovery.n_asked.load(Relaxed), 1);
    let stats = router.stats();
    assert_eq!((stats.n_lookups, stats.n_destinations), (1, 200));
}

#[tokio::test]
async fn a_wider_answer_does_not_override_a_narrower_one() {
    let [host, part, site] = [PeerId::random(), PeerId::random(), PeerId::random()];
    let discovery = Networks::new([
        ("10.3.0.1/32", Answer::host(host)),
        ("10.3.1.128/25", Answer::network(net("10.3.1.0/24"), part)),
        ("10.3.0.0/16", Answer::network(net("10.3.0.0/16"), site)),
    ]);
    let router = StreamRouter::new(
        StreamRouterConfig::default(),
        MemoryPool::default(),
        discovery.clone(),
    );
    let resolve = async |address: [u8; 4]| router.resolve(address.into()).await;

    assert_eq!(resolve([10, 3, 0, 1]).await, Ok(host));
    assert_eq!(resolve([10, 3, 1, 200]).await, Ok(part));
    assert_eq!(resolve([10, 3, 9, 9]).await, Ok(site));

    assert_eq!(resolve([10, 3, 0, 1]).await, Ok(host));
    assert_eq!(resolve([10, 3, 0, 2]).await, Ok(site));
    assert_eq!(resolve([10, 3, 1, 1]).await, Ok(part));
    assert_eq!(discovery.n_asked.load(Relaxed), 3);
}

#[tokio::test]
async fn that_a_network_is_nobodys_is_asked_once() {
    let nobody = Answer::nobody_in(net("10.4.0.0/16"));
    let discovery = Networks::new([("10.4.0.0/16", nobody)]);
    let router = StreamRouter::new(
        StreamRouterConfig::default(),
        MemoryPool::default(),
        discovery.clone(),
    );

    for host in 1..=50 {
        let destination = [10, 4, 0, host].into();
        let unknown = Err(DispatchError::UnknownPeer { destination });
        assert_eq!(router.resolve(destination).await, unknown);
    }

    assert_eq!(discovery.n_asked.load(Relaxed), 1);
}

#[tokio::test]
async fn an_answer_about_another_network_is_refused_and_counted() {
    let peer = PeerId::random();
    let discovery = Networks::new([("10.3.0.0/16", Answer::network(net("10.4.0.0/16"), peer))]);
    let router = StreamRouter::new(StreamRouterConfig::default(), MemoryPool::default(), discovery);

    let error = router.resolve([10, 3, 0, 1].into()).await.unwrap_err();

    let cause = error.source().and_then(Error::source).expect("a cause");
    assert_eq!(
        cause.to_string(),
        "the answer is about 10.4.0.0/16, which does not hold 10.3.0.1"
    );
    let stats = router.stats();
    assert_eq!((stats.n_refused_answers, stats.n_failed_lookups), (1, 1));
    let elsewhere = router.resolve([10, 4, 0, 1].into()).await.unwrap_err();
    assert!(
        matches!(elsewhere, DispatchError::UnknownPeer { .. }),
        "{elsewhere}"
    );
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_asked_for_again_and_nothing_is_lost() {
    let (router, pool, _) = router(StreamRouterConfig::default());
    resolve(&router).await;
    pool.fail(3);
    assert!(insist(&router, &packet(0, 1, 0)).await);

    until("the packet arrives", || pool.received().len() == 1).await;

    assert_eq!(router.stats().peers[0].n_lost, 0);
}

#[tokio::test]
async fn a_retired_worker_goes_once_its_flows_have_expired_and_comes_back_when_it_is_needed() {
    let config = StreamRouterConfig::builder()
        .min_workers(1)
        .initial_workers(4)
        .connection_ttl(LITTLE)
        .cleanup_interval(LITTLE)
        .worker_scale_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    let (router, pool, _) = router(config);
    resolve(&router).await;
    for flow in 0..100 {
        assert!(insist(&router, &packet(0, flow, 0)).await);
    }

    router.set_workers(1).await;
    until("workers retire", || router.stats().n_workers == 1).await;
    until("they go", || router.stats().n_retired_workers == 0).await;
    until("flows expire", || router.stats().n_flows == 0).await;
    for flow in 0..100 {
        assert!(insist(&router, &packet(0, flow, 1)).await);
    }
    // One that is still about to end is not started again.
    until_async("the workers come back", LIMIT, async || {
        router.set_workers(4).await;
        router.stats().n_workers == 4
    })
    .await;
    for flow in 100..200 {
        assert!(insist(&router, &packet(0, flow, 0)).await);
    }
    let report = router.shutdown(LIMIT).await;

    assert!(report.closed, "{report:?}");
    let flows = by_flow(&pool.received());
    assert_eq!(flows.len(), 200);
    assert!(flows.iter().all(|((_, flow), numbers)| match flow {
        0..100 => *numbers == [0, 1],
        _ => *numbers == [0],
    }));
}
