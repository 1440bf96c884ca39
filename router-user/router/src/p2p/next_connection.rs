//! What the driver and the transports tell each other of the connection that begins now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{losses::Losses, uplink::UplinkBy};

/// The connection that is dialled or was accepted last: the swarm, which joins the two, has no words for this. It begins one
/// after the other, on one task.
#[derive(Clone, Debug, Default)]
pub(super) struct NextConnection(Arc<Mutex<Next>>);

#[derive(Debug, Default)]
struct Next {
    uplink: Option<UplinkBy>,
    losses: Option<Arc<Losses>>,
}

impl NextConnection {
    /// Has what `begin` dials leave by an uplink. Returns what counts its packets, too.
    pub(super) fn during<T>(&self, uplink: Option<UplinkBy>, begin: impl FnOnce() -> T) -> (T, Arc<Losses>) {
        let losses = Arc::<Losses>::default();
        *self.lock() = Next {
            uplink,
            losses: Some(Arc::clone(&losses)),
        };
        let begun = begin();
        *self.lock() = Next::default();
        (begun, losses)
    }

    /// Returns by which uplink the dial that begins is to leave.
    pub(super) fn uplink(&self) -> Option<UplinkBy> {
        self.lock().uplink.clone()
    }

    /// Returns what counts the packets of what is dialled.
    pub(super) fn dialled(&self) -> Arc<Losses> {
        self.lock().losses.clone().unwrap_or_default()
    }

    /// Returns what counts the packets of a connection that has just been accepted.
    pub(super) fn accepted(&self) -> Arc<Losses> {
        let losses = Arc::<Losses>::default();
        self.lock().losses = Some(Arc::clone(&losses));
        losses
    }

    /// Takes that of the connection that was accepted last; that of a connection through a relay counts nothing.
    pub(super) fn take_accepted(&self) -> Arc<Losses> {
        self.lock().losses.take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_has_its_uplink_and_both_sides_of_a_connection_have_what_counts_its_packets() {
        let next = NextConnection::default();
        let by = UplinkBy::Device("eth0".to_owned());

        let ((uplink, dialled), losses) = next.during(Some(by.clone()), || (next.uplink(), next.dialled()));

        assert_eq!((uplink, next.uplink()), (Some(by), None));
        assert!(Arc::ptr_eq(&dialled, &losses) && !Arc::ptr_eq(&next.dialled(), &losses));
        let accepted = next.accepted();
        assert!(Arc::ptr_eq(&next.take_accepted(), &accepted));
        assert!(!Arc::ptr_eq(&next.take_accepted(), &accepted), "of a circuit");
    }
}
