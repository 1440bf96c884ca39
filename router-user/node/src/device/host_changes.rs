//! Follows what changes in the network of the host: links, addresses, routes, rules and traffic control.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::proto::Connection;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::netlink::NetlinkError;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Tc,
    MulticastGroup::Ipv6Ifinfo,
];

/// Pause before a subscription that has ended is made anew.
const REOPEN: Duration = Duration::from_millis(100);

/// Something has changed in the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// An interface, its addresses, its queueing or its filters.
    Interface {
        /// Index of the interface.
        index: u32,
        /// The message says that the interface is down or gone.
        down: bool,
    },
    /// A route.
    Route {
        /// Index of the interface that it leads to, if it leads to one.
        output: Option<u32>,
    },
    /// A policy rule, or something that cannot be told from other things.
    Other,
    /// Messages were lost: anything may have changed.
    Anything,
}

/// A subscription to the changes of a network namespace, which ends when it is dropped.
#[derive(Debug)]
pub struct HostChanges {
    task: JoinHandle<()>,
}

impl Drop for HostChanges {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HostChanges {
    /// Subscribes in the network namespace of the calling thread; a task on the current runtime gives each change to
    /// `handle`. Where the kernel had more to say than the socket holds, and where the socket fails and is opened anew,
    /// that is [`HostChange::Anything`].
    ///
    /// # Errors
    /// The kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn subscribe(handle: impl FnMut(HostChange) + Send + 'static) -> Result<Self, NetlinkError> {
        Self::follow(open, handle)
    }

    /// Subscribes as [`HostChanges::subscribe`] does, with sockets that `open` makes.
    pub(super) fn follow(
        mut open: impl FnMut() -> io::Result<Subscription> + Send + 'static,
        mut handle: impl FnMut(HostChange) + Send + 'static,
    ) -> Result<Self, NetlinkError> {
        let mut opened = open().map_err(NetlinkError::Open)?;
        let task = tokio::spawn(async move {
            loop {
                let (connection, _, mut messages) = opened;
                let mut connection = std::pin::pin!(connection);
                loop {
                    tokio::select! {
                        // Its queue has no bound, so it is emptied before more is read.
                        biased;
                        message = messages.next() => match message {
                            Some((message, _)) => {
                                if let Some(change) = change(&message) {
                                    handle(change);
                                }
                            }
                            None => break,
                        },
                        () = &mut connection => break,
                    }
                }
                opened = loop {
                    sleep(REOPEN).await;
                    if let Ok(again) = open() {
                        break again;
                    }
                };
                // What has changed before is not told any more.
                handle(HostChange::Anything);
            }
        });
        Ok(Self { task })
    }
}

/// A socket that is told of changes: what reads it, what would ask by it, and what it has been told.
pub(super) type Subscription = (
    Connection<RouteNetlinkMessage>,
    Handle,
    UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
);

/// Opens a socket of the calling thread's network namespace.
pub(super) fn open() -> io::Result<Subscription> {
    new_multicast_connection(&GROUPS)
}

/// Returns what a message tells; `None` for what is of no interest.
fn change(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<HostChange> {
    let interface = |index, down| Some(HostChange::Interface { index, down });
    let message = match &message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(HostChange::Anything),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            interface(link.header.index, !link.header.flags.contains(LinkFlags::Up))
        }
        RouteNetlinkMessage::DelLink(link) => interface(link.header.index, true),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            interface(address.header.index, false)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            Some(HostChange::Route {
                output: output(route),
            })
        }
        RouteNetlinkMessage::NewQueueDiscipline(tc)
        | RouteNetlinkMessage::DelQueueDiscipline(tc)
        | RouteNetlinkMessage::NewTrafficFilter(tc)
        | RouteNetlinkMessage::DelTrafficFilter(tc)
        | RouteNetlinkMessage::NewTrafficChain(tc)
        | RouteNetlinkMessage::DelTrafficChain(tc) => {
            interface(u32::try_from(tc.header.index).unwrap_or(0), false)
        }
        _ => Some(HostChange::Other),
    }
}

fn output(route: &RouteMessage) -> Option<u32> {
    // IPv6 routes that lead nowhere are said to lead to the loopback interface.
    if route.header.kind == RouteType::Unreachable {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
