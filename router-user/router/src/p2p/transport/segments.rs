//! How large the TCP segments to each host may be.
//!
//! A path can lose large packets and say nothing: its MTU is smaller than that of both ends, and a firewall drops the
//! ICMP errors that would tell. TCP then connects, and nothing larger arrives. The dialler announces the size of the
//! segments that it takes, which bounds both directions, so that the remedy is to dial again with a smaller one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How long it is remembered that a host gets smaller segments. A path that has been mended is found out at the first
/// dial after it.
const MEMORY: Duration = Duration::from_secs(600);

/// How long after a connection was given up a dial tries a smaller size. If even this dial connects, the path is there,
/// and small packets pass; if the path is gone, the dial fails and a later one is made as ever.
const SUSPICION: Duration = Duration::from_millis(1500);

/// How long a step of the first handshake may take; see [`SegmentBook::plan`].
const STEP_LIMIT: Duration = Duration::from_secs(4);

/// How often the limit doubles.
const MAX_DOUBLINGS: u32 = 2;

/// Most hosts that something is remembered of.
const MAX_HOSTS: usize = 4096;

/// A bound of TCP segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::p2p) enum SegmentSize {
    /// What the MTU of the interface allows.
    Whole,
    /// What fits a packet of 1280 bytes, which every IPv6 path carries.
    Small,
    /// What every IPv4 host takes (RFC 9293, 3.7.1).
    Least,
}

impl SegmentSize {
    /// Returns the value of `TCP_MAXSEG`: the bytes of a packet without IP and TCP headers.
    pub(super) fn bytes(self) -> Option<u32> {
        match self {
            Self::Whole => None,
            Self::Small => Some(1220),
            Self::Least => Some(536),
        }
    }

    fn smaller(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::Small),
            Self::Small => Some(Self::Least),
            Self::Least => None,
        }
    }
}

/// How a host is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DialPlan {
    /// The bound of the segments.
    pub(super) size: SegmentSize,
    /// How long a step of the handshake may take.
    pub(super) step_limit: Duration,
}

/// How a connection that goes on gets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::p2p) enum Stall {
    /// What was sent is not acknowledged. The connection is to be looked at.
    Doubted,
    /// And nothing comes of the other side. Another connection is to be tried that leads elsewhere.
    Dark,
    /// That for so long that another connection is to be tried, with smaller segments.
    Suspected,
}

/// What is remembered of hosts that did not take whole segments.
#[derive(Debug, Default)]
pub(in crate::p2p) struct SegmentBook {
    hosts: Mutex<HashMap<IpAddr, HostEntry>>,
    /// The hosts to which connections stall, until they are taken.
    stalled: Mutex<BTreeMap<IpAddr, Stall>>,
    has_stalled: Notify,
}

#[derive(Debug)]
struct HostEntry {
    size: SegmentSize,
    /// The size below the whole in which a handshake last succeeded.
    confirmed: Option<SegmentSize>,
    suspected_until: Option<Instant>,
    /// When a connection stalled, until it is known what is older.
    stalled: Option<Instant>,
    n_timeouts: u32,
    forget_at: Instant,
}

impl SegmentBook {
    /// Returns how a host is dialled at `now`. A step may take longer with each handshake that has timed out since the
    /// last one that succeeded: 4 s, 8 s, 16 s.
    pub(super) fn plan(&self, host: IpAddr, now: Instant) -> DialPlan {
        let mut hosts = self.hosts();
        let Some(entry) = hosts.get(&host).filter(|entry| entry.forget_at > now) else {
            hosts.remove(&host);
            return DialPlan {
                size: SegmentSize::Whole,
                step_limit: STEP_LIMIT,
            };
        };
        let suspected = entry.suspected_until.is_some_and(|until| now < until);
        let smaller = suspected.then(|| entry.size.smaller()).flatten();
        DialPlan {
            size: smaller.unwrap_or(entry.size),
            step_limit: STEP_LIMIT * 2_u32.pow(entry.n_timeouts.min(MAX_DOUBLINGS)),
        }
    }

    /// Records that a host connected, and then did not answer a handshake in segments of this size for a while. The next
    /// dial has smaller ones, and after the smallest whole ones again.
    pub(super) fn handle_stall(&self, host: IpAddr, tried: SegmentSize, now: Instant) {
        self.with(host, now, |entry| {
            // Attempts overlap: an older one says nothing new.
            if entry.size == tried {
                entry.size = tried.smaller().unwrap_or(SegmentSize::Whole);
            }
        });
    }

    /// Records that a handshake was given up.
    pub(super) fn handle_timeout(&self, host: IpAddr, now: Instant) {
        self.with(host, now, |entry| {
            entry.n_timeouts = entry.n_timeouts.saturating_add(1)
        });
    }

    /// Records that a handshake succeeded in segments of this size. Returns whether it is news that the host does not get
    /// whole ones.
    pub(super) fn handle_secured(&self, host: IpAddr, used: SegmentSize, now: Instant) -> bool {
        if used == SegmentSize::Whole {
            self.hosts().remove(&host);
            return false;
        }
        let mut is_news = false;
        self.with(host, now, |entry| {
            is_news = entry.confirmed.replace(used) != Some(used);
            entry.size = used;
            entry.suspected_until = None;
            entry.n_timeouts = 0;
        });
        is_news
    }

    /// Records that a connection with a host was given up because nothing came through any more.
    pub(in crate::p2p) fn handle_given_up(&self, host: IpAddr, now: Instant) {
        self.with(host, now, |entry| entry.suspected_until = Some(now + SUSPICION));
    }

    /// Records that a connection with a host stalls.
    pub(super) fn handle_stalled(&self, host: IpAddr, stall: Stall, now: Instant) {
        if stall == Stall::Suspected {
            self.with(host, now, |entry| {
                entry.stalled = Some(now);
                // That the least gets through where the small does not is seldom, and loss looks like it.
                if entry.size == SegmentSize::Whole {
                    entry.suspected_until = Some(now + SUSPICION);
                }
            });
        }
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if stalled.len() < MAX_HOSTS || stalled.contains_key(&host) {
            let worst = stalled.entry(host).or_insert(stall);
            *worst = stall.max(*worst);
            self.has_stalled.notify_one();
        }
    }

    /// Waits until connections stall, and takes the hosts to which they do.
    pub(in crate::p2p) async fn stalled(&self) -> BTreeMap<IpAddr, Stall> {
        self.has_stalled.notified().await;
        std::mem::take(&mut *self.stalled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that a host was not reached at once: the path is gone, and of its size nothing is known.
    pub(super) fn handle_unreached(&self, host: IpAddr) {
        if let Some(entry) = self.hosts().get_mut(&host) {
            entry.suspected_until = None;
        }
    }

    /// Returns for how long a connection with a host has stalled that is known by now not to get whole segments, once.
    pub(in crate::p2p) fn take_stalled(&self, host: IpAddr, now: Instant) -> Option<Duration> {
        let mut hosts = self.hosts();
        let entry = hosts.get_mut(&host).filter(|entry| entry.forget_at > now)?;
        entry.confirmed?;
        let stalled = entry.stalled.take()?;
        Some(now.saturating_duration_since(stalled))
    }

    fn with(&self, host: IpAddr, now: Instant, change: impl FnOnce(&mut HostEntry)) {
        let mut hosts = self.hosts();
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(&host) {
            hosts.retain(|_, entry| entry.forget_at > now);
            if hosts.len() >= MAX_HOSTS {
                return;
            }
        }
        let entry = hosts.entry(host).or_insert(HostEntry {
            size: SegmentSize::Whole,
            confirmed: None,
            suspected_until: None,
            stalled: None,
            n_timeouts: 0,
            forget_at: now,
        });
        change(entry);
        entry.forget_at = now + MEMORY;
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<IpAddr, HostEntry>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_host_that_stalls_is_dialled_with_smaller_segments_and_no_other() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        let size = |host| book.plan(host, now).size;
        assert_eq!(size(HOST), SegmentSize::Whole);

        book.handle_stall(HOST, SegmentSize::Whole, now);
        assert_eq!(
            (size(HOST), size(OTHER)),
            (SegmentSize::Small, SegmentSize::Whole)
        );
        book.handle_stall(HOST, SegmentSize::Whole, now);
        assert_eq!(
            size(HOST),
            SegmentSize::Small,
            "an older attempt of the same size"
        );
        book.handle_stall(HOST, SegmentSize::Small, now);
        assert_eq!(size(HOST), SegmentSize::Least);
        book.handle_stall(HOST, SegmentSize::Least, now);
        assert_eq!(size(HOST), SegmentSize::Whole, "it was not the size");
    }

    #[test]
    fn what_succeeds_is_remembered_for_a_time_and_whole_segments_end_it() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        book.handle_stall(HOST, SegmentSize::Whole, now);
        book.handle_timeout(HOST, now);
        assert!(book.handle_secured(HOST, SegmentSize::Small, now));
        assert!(!book.handle_secured(HOST, SegmentSize::Small, now), "no news");
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Small);
        assert_eq!(book.plan(HOST, now + MEMORY).size, SegmentSize::Whole);

        book.handle_stall(HOST, SegmentSize::Whole, now);
        assert!(!book.handle_secured(HOST, SegmentSize::Whole, now));
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Whole);
    }

    #[test]
    fn a_connection_that_was_given_up_makes_the_next_dial_smaller_and_no_later_one() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        book.handle_given_up(HOST, now);
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Small);
        assert_eq!(book.plan(HOST, now + SUSPICION).size, SegmentSize::Whole);

        assert!(book.handle_secured(HOST, SegmentSize::Small, now));
        assert_eq!(book.plan(HOST, now + SUSPICION).size, SegmentSize::Small);
        book.handle_given_up(HOST, now + SUSPICION);
        assert_eq!(book.plan(HOST, now + SUSPICION).size, SegmentSize::Least);
    }

    #[test]
    fn a_connection_that_stalls_is_told_of_and_makes_the_next_dial_small_but_never_the_least() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        let stalled = || book.stalled().now_or_never().unwrap_or_default();
        assert!(stalled().is_empty());

        book.handle_stalled(HOST, Stall::Doubted, now);
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Whole);
        book.handle_stalled(HOST, Stall::Suspected, now);
        book.handle_stalled(HOST, Stall::Doubted, now);
        assert_eq!(stalled(), BTreeMap::from([(HOST, Stall::Suspected)]));
        assert!(stalled().is_empty(), "taken");
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Small);
        assert_eq!(book.plan(HOST, now + SUSPICION).size, SegmentSize::Whole);

        assert_eq!(book.take_stalled(HOST, now), None, "nothing is known yet");
        book.handle_secured(HOST, SegmentSize::Small, now + STEP_LIMIT);
        assert_eq!(book.take_stalled(HOST, now + STEP_LIMIT), Some(STEP_LIMIT));
        assert_eq!(book.take_stalled(HOST, now + STEP_LIMIT), None, "taken");
        book.handle_stalled(HOST, Stall::Suspected, now);
        assert_eq!(book.plan(HOST, now).size, SegmentSize::Small);
    }

    #[test]
    fn a_path_that_is_gone_is_not_suspected_to_be_narrow() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        book.handle_stalled(HOST, Stall::Suspected, now);

        book.handle_unreached(HOST);

        assert_eq!(book.plan(HOST, now).size, SegmentSize::Whole);
    }

    #[test]
    fn a_step_may_take_longer_with_each_timeout_up_to_a_bound() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        let mut limits = Vec::new();
        for _ in 0..4 {
            limits.push(book.plan(HOST, now).step_limit.as_secs());
            book.handle_timeout(HOST, now);
        }
        assert_eq!(limits, [4, 8, 16, 16]);

        book.handle_secured(HOST, SegmentSize::Whole, now);
        assert_eq!(book.plan(HOST, now).step_limit, STEP_LIMIT);
    }

    #[test]
    fn the_memory_is_bounded_and_what_is_old_makes_room() {
        let (book, now) = (SegmentBook::default(), Instant::now());
        for n in 0..MAX_HOSTS as u32 + 10 {
            book.handle_timeout(IpAddr::V4(n.into()), now);
        }
        assert_eq!(book.hosts().len(), MAX_HOSTS);

        book.handle_timeout(HOST, now + MEMORY);

        assert_eq!(book.hosts().len(), 1);
    }
}
