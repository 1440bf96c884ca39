//! Several discoveries, one after another.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::{Answer, DiscoveryError, PeerDiscovery};

/// How long one may take before the next is asked. Two that are silent leave a third its time within the 5 s that a
/// [`StreamRouter`](crate::router::StreamRouter) waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks its discoveries in order; the first that knows a peer has answered.
///
/// One that fails, or is silent for 2 s, is passed over. That nobody owns an address is the answer only if all say so:
/// if one has failed, it might have known, and so the chain fails too.
///
/// An answer is about a network only as far as those that were asked before said of the same network that it is nobody's;
/// behind one that answers for single addresses, that has failed or was silent, it is about the one address.
///
/// ```
/// use stream_router::discovery::{Answer, ChainDiscovery, PeerDiscovery, StaticDiscovery};
/// # use stream_router::PeerId;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (site, elsewhere) = (PeerId::random(), PeerId::random());
/// let chain = ChainDiscovery::new()
///     .then(StaticDiscovery::new([("10.1.0.0/16".parse()?, site)]))
///     .then(StaticDiscovery::new([("0.0.0.0/0".parse()?, elsewhere)]));
///
/// let answer = chain.find_peer([10, 1, 0, 1].into()).await?;
/// assert_eq!(answer, Answer::network("10.1.0.0/16".parse()?, site));
/// let answer = chain.find_peer([192, 0, 2, 1].into()).await?;
/// assert_eq!(answer, Answer::network("128.0.0.0/1".parse()?, elsewhere));
/// # Ok(())
/// # }
/// ```
pub struct ChainDiscovery {
    links: Vec<Box<dyn PeerDiscovery>>,
    patience: Duration,
}

impl Default for ChainDiscovery {
    fn default() -> Self {
        Self::new()
    }
}

impl ChainDiscovery {
    /// Makes a chain that knows nobody yet.
    pub fn new() -> Self {
        Self {
            links: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// Passes over one that is silent for so long, instead of 2 s.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Returns the chain with another one at its end.
    #[must_use]
    pub fn then(mut self, next: impl PeerDiscovery) -> Self {
        self.links.push(Box::new(next));
        self
    }
}

impl fmt::Debug for ChainDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainDiscovery of {}", self.links.len())
    }
}

impl PeerDiscovery for ChainDiscovery {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        Box::pin(async move {
            let mut errors = Vec::new();
            // Of those asked so far: that it is nobody's. Nothing was asked for what is around it at first.
            let mut before: Option<Answer> = None;
            for (index, link) in self.links.iter().enumerate() {
                let error = match timeout(self.patience, link.find_peer(destination)).await {
                    Ok(Ok(answer)) => {
                        let answer = before.map_or(answer, |before| answer.within(before));
                        if answer.peer.is_some() {
                            return Ok(answer);
                        }
                        before = Some(answer);
                        continue;
                    }
                    Ok(Err(error)) => error,
                    Err(elapsed) => DiscoveryError::new(elapsed),
                };
                errors.push((index, error));
                before = Some(Answer::nobody());
            }
            if errors.is_empty() {
                Ok(before.unwrap_or(Answer::nobody()))
            } else {
                Err(DiscoveryError::new(ChainError { errors }))
            }
        })
    }
}

/// Why a [`ChainDiscovery`] cannot answer: these of it failed, and no other knew.
#[derive(Debug)]
#[non_exhaustive]
pub struct ChainError {
    errors: Vec<(usize, DiscoveryError)>,
}

impl ChainError {
    /// Returns which failed, counted from 0, and why.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &DiscoveryError)> {
        self.errors.iter().map(|(index, error)| (*index, error))
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody knows it, and not all could be asked")?;
        for (index, error) in &self.errors {
            write!(f, "; discovery {}", index + 1)?;
            let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for ChainError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use libp2p_identity::PeerId;

    use super::super::StaticDiscovery;
    use super::*;

    enum Script {
        Knows(PeerId),
        Nobody,
        Fails(&'static str),
        Hangs,
    }

    struct Scripted(Script, Arc<AtomicU32>);

    impl PeerDiscovery for Scripted {
        fn find_peer(&self, _: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
            Box::pin(async {
                self.1.fetch_add(1, Relaxed);
                match &self.0 {
                    Script::Knows(peer) => Ok(Answer::host(*peer)),
                    Script::Nobody => Ok(Answer::nobody()),
                    Script::Fails(why) => Err(DiscoveryError::new(*why)),
                    Script::Hangs => std::future::pending().await,
                }
            })
        }
    }

    /// Returns the answer, and how many were asked.
    async fn ask(scripts: impl IntoIterator<Item = Script>) -> (Result<Option<PeerId>, String>, u32) {
        let n_asked = Arc::new(AtomicU32::new(0));
        let chain = ChainDiscovery::new().with_patience(Duration::from_millis(50));
        let chain = scripts.into_iter().fold(chain, |chain, script| {
            chain.then(Scripted(script, n_asked.clone()))
        });
        let answer = chain.find_peer([10, 0, 0, 1].into()).await;
        let answer = answer.map_err(|error| {
            let cause = std::error::Error::source(&error).expect("a cause");
            cause.to_string()
        });
        (answer.map(|answer| answer.peer), n_asked.load(Relaxed))
    }

    #[tokio::test]
    async fn the_first_that_knows_wins_and_those_after_it_are_not_asked() {
        use Script::{Fails, Knows, Nobody};
        let (first, second) = (PeerId::random(), PeerId::random());

        assert_eq!(ask([Knows(first), Knows(second)]).await, (Ok(Some(first)), 1));
        assert_eq!(
            ask([Nobody, Knows(second), Knows(first)]).await,
            (Ok(Some(second)), 2)
        );
        assert_eq!(ask([Fails("down"), Knows(second)]).await, (Ok(Some(second)), 2));
    }

    #[tokio::test]
    async fn nobody_owns_it_only_if_all_say_so() {
        use Script::{Fails, Nobody};

        assert_eq!(ask([]).await, (Ok(None), 0));
        assert_eq!(ask([Nobody, Nobody]).await, (Ok(None), 2));
        let (answer, n_asked) = ask([Nobody, Fails("is down"), Nobody, Fails("is away")]).await;
        assert_eq!(n_asked, 4);
        assert_eq!(
            answer.unwrap_err(),
            "nobody knows it, and not all could be asked; discovery 2: is down; discovery 4: is away"
        );
    }

    #[tokio::test]
    async fn one_that_is_silent_is_passed_over() {
        use Script::{Hangs, Knows, Nobody};
        let peer = PeerId::random();

        assert_eq!(ask([Hangs, Knows(peer)]).await, (Ok(Some(peer)), 2));
        let (answer, _) = ask([Hangs, Nobody]).await;
        assert!(answer.unwrap_err().contains("discovery 1: deadline has elapsed"));
    }

    #[tokio::test]
    async fn an_answer_is_no_wider_than_what_those_before_it_said() {
        let (site, elsewhere) = (PeerId::random(), PeerId::random());
        let site = || StaticDiscovery::new([("10.1.0.0/16".parse().unwrap(), site)]);
        let rest = || StaticDiscovery::new([("0.0.0.0/0".parse().unwrap(), elsewhere)]);
        let scripted = |script| Scripted(script, Arc::default());
        let ask = async |chain: ChainDiscovery| chain.find_peer([10, 0, 0, 1].into()).await.unwrap();

        let wide = ask(ChainDiscovery::new().then(site()).then(rest())).await;
        let narrow = ask(ChainDiscovery::new().then(scripted(Script::Nobody)).then(rest())).await;
        let failed = ChainDiscovery::new()
            .then(scripted(Script::Fails("down")))
            .then(site())
            .then(rest());

        assert_eq!(wide, Answer::network("10.0.0.0/16".parse().unwrap(), elsewhere));
        assert_eq!(narrow, Answer::host(elsewhere));
        assert_eq!(ask(failed).await, Answer::host(elsewhere));
    }
}
