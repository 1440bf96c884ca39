//! What is remembered, as time goes by.

use std::sync::Mutex;

use futures::future::BoxFuture;

use super::*;
use crate::router::PoolError;

struct Pool;

impl StreamPool for Pool {
    type Stream = futures::io::Sink;

    fn open(&self, _: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
        Box::pin(async { Ok(futures::io::sink()) })
    }

    fn list(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }
}

/// Gives the answer that was laid down for the first network that holds the address; none is a failure.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<(IpNet, Answer)>>>);

impl Script {
    fn say(&self, answers: &[(&str, Answer)]) {
        let answers = answers.iter().map(|(of, answer)| (net(of), *answer)).collect();
        *self.0.lock().expect("nobody panics with it") = answers;
    }
}

impl PeerDiscovery for Script {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        let answers = self.0.lock().expect("nobody panics with it");
        let answer = answers.iter().find(|(of, _)| of.contains(&destination));
        let answer = answer.map(|(_, answer)| *answer);
        Box::pin(async move { answer.ok_or_else(|| DiscoveryError::new("silence")) })
    }
}

struct Trial {
    resolver: Resolver<Pool, Script>,
    script: Script,
    start: Instant,
    seconds: u64,
}

impl Trial {
    fn new(answers: &[(&str, Answer)]) -> Self {
        let script = Script::default();
        script.say(answers);
        let shared = Arc::new(Shared::new(crate::config::StreamRouterConfig::default()));
        Self {
            resolver: Resolver::new(shared, Arc::new(Pool), script.clone(), CancellationToken::new()),
            script,
            start: Instant::now(),
            seconds: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    /// Lets every question that is open be answered.
    async fn answer(&mut self) {
        while let Some(ended) = self.resolver.lookups.join_next_with_id().await {
            self.resolver.handle_ended(ended, self.now());
        }
    }

    async fn ask(&mut self, destination: IpAddr) -> Result<PeerId, DispatchError> {
        let (reply, mut answer) = oneshot::channel();
        let ask = Ask {
            destination,
            reply: Some(reply),
        };
        self.resolver.handle_ask(ask, self.now());
        self.answer().await;
        answer.try_recv().expect("an answer")
    }

    /// Sweeps at each second up to this one, while packets go to `used`.
    async fn go_on(&mut self, until: u64, used: &[IpAddr]) {
        while self.seconds < until {
            self.seconds += 1;
            for destination in used {
                self.resolver.shared.destinations.look_up(*destination, |_| ());
            }
            self.resolver.sweep(self.now());
            self.answer().await;
        }
    }

    /// What packets to it see.
    fn seen(&self, destination: IpAddr) -> Option<Result<PeerId, DispatchError>> {
        let destinations = &self.resolver.shared.destinations;
        destinations.look_up(destination, |known| known.map(|known| known.owner(destination)))
    }

    fn n_lookups(&self) -> u64 {
        self.resolver.shared.counters.n_lookups.load(Relaxed)
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn host(number: u8) -> IpAddr {
    [10, 3, 0, number].into()
}

fn site(peer: PeerId) -> (&'static str, Answer) {
    ("10.3.0.0/16", Answer::network(net("10.3.0.0/16"), peer))
}

#[tokio::test]
async fn a_network_is_renewed_by_one_question() {
    let (peer, next, single) = (PeerId::random(), PeerId::random(), PeerId::random());
    let mut trial = Trial::new(&[("10.3.0.1/32", Answer::host(single)), site(peer)]);
    let hosts: Vec<_> = (1..=40).map(host).collect();
    for host in &hosts {
        trial.ask(*host).await.expect("an owner");
    }
    assert_eq!(trial.n_lookups(), 2);

    trial
        .script
        .say(&[("10.3.0.1/32", Answer::host(single)), site(next)]);
    trial.go_on(58, &hosts).await;
    assert_eq!((trial.n_lookups(), trial.seen(host(2))), (2, Some(Ok(peer))));
    trial.go_on(62, &hosts).await;

    assert_eq!(trial.n_lookups(), 4);
    assert_eq!(trial.seen(host(1)), Some(Ok(single)));
    assert!(hosts[1..].iter().all(|host| trial.seen(*host) == Some(Ok(next))));
}

#[tokio::test]
async fn a_network_that_is_no_longer_one_is_asked_for_host_by_host() {
    let (peer, next) = (PeerId::random(), PeerId::random());
    let mut trial = Trial::new(&[site(peer)]);
    let hosts: Vec<_> = (1..=10).map(host).collect();
    for host in &hosts {
        trial.ask(*host).await.expect("an owner");
    }

    trial.script.say(&[("10.3.0.0/16", Answer::host(next))]);
    trial.go_on(62, &hosts).await;

    assert_eq!(trial.n_lookups(), 1 + 10);
    assert!(hosts.iter().all(|host| trial.seen(*host) == Some(Ok(next))));
}

#[tokio::test]
async fn an_owner_holds_while_the_discovery_fails_and_a_failure_is_seen_for_a_second() {
    let peer = PeerId::random();
    let mut trial = Trial::new(&[site(peer)]);
    let hosts = [host(1), host(2)];
    for host in hosts {
        trial.ask(host).await.expect("an owner");
    }
    trial.script.say(&[]);

    let elsewhere = IpAddr::from([10, 4, 0, 1]);
    let failed = trial.ask(elsewhere).await.expect_err("silence");
    assert_eq!(trial.seen(elsewhere), Some(Err(failed.clone())));
    assert!(matches!(failed, DispatchError::DiscoveryFailed { .. }));
    trial.go_on(1, &hosts).await;
    assert_eq!(trial.seen(elsewhere), None);

    trial.go_on(299, &hosts).await;
    assert!(hosts.iter().all(|host| trial.seen(*host) == Some(Ok(peer))));
    // One question a second for both.
    assert_eq!(trial.n_lookups(), 2 + 240);
    trial.go_on(300, &hosts).await;
    assert!(hosts.iter().all(|host| trial.seen(*host).is_none()));
}

#[tokio::test]
async fn what_nobody_uses_or_owns_is_forgotten() {
    let mut trial = Trial::new(&[
        site(PeerId::random()),
        ("10.5.0.0/16", Answer::nobody_in(net("10.5.0.0/16"))),
    ]);
    let nobodys = IpAddr::from([10, 5, 0, 1]);
    trial.ask(host(1)).await.expect("an owner");
    trial.ask(nobodys).await.expect_err("nobody's");
    trial.go_on(4, &[]).await;
    trial.ask([10, 5, 0, 2].into()).await.expect_err("nobody's");
    assert_eq!((trial.n_lookups(), trial.resolver.remembered.len()), (2, 3));

    trial.go_on(5, &[]).await;
    assert_eq!((trial.seen(nobodys), trial.resolver.remembered.len()), (None, 1));
    trial.go_on(60, &[]).await;

    assert_eq!((trial.n_lookups(), trial.resolver.remembered.len()), (2, 0));
}
