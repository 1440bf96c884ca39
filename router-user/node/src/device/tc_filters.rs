//! The filters of traffic control at an interface.

use futures::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::TrafficFilterGetRequest;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::netlink::{Netlink, NetlinkError, refused};

/// Packets that the program steals end there only with this flag (`TCA_BPF_FLAG_ACT_DIRECT`).
const DIRECT_ACTION: u32 = 1;

/// A filter at the ingress or the egress of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcFilter {
    /// Place among the filters.
    pub priority: u16,
    /// What tells it from others of its priority.
    pub handle: u32,
    /// Kind of the filter, such as `bpf`.
    pub kind: String,
    /// Id of its program, if it is one whose outcome is what becomes of the packet.
    pub program: Option<u32>,
}

impl TcFilter {
    /// Reads a message of the kernel; `None` for one that says only that there are filters of a priority.
    fn of(message: &TcMessage) -> Option<Self> {
        if u32::from(message.header.handle) == 0 {
            return None;
        }
        let mut filter = Self {
            priority: (message.header.info >> 16) as u16,
            handle: message.header.handle.into(),
            kind: String::new(),
            program: None,
        };
        let mut direct = false;
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
                // Filters of another chain are gone to by a filter of the first.
                TcAttribute::Chain(chain) if *chain != 0 => return None,
                TcAttribute::Options(options) => {
                    for option in options {
                        match option {
                            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                            TcOption::Bpf(TcFilterBpfOption::Flags(flags)) => {
                                direct = flags.bits() & DIRECT_ACTION != 0;
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        filter.program = filter.program.filter(|_| direct);
        Some(filter)
    }
}

impl Netlink {
    /// Returns the filters at the egress of an interface, in the order in which packets come by.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn egress_filters(&self, index: u32) -> Result<Vec<TcFilter>, NetlinkError> {
        self.filters(index, TrafficFilterGetRequest::egress).await
    }

    /// Returns the filters at the ingress of an interface, in the order in which packets come by.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn ingress_filters(&self, index: u32) -> Result<Vec<TcFilter>, NetlinkError> {
        self.filters(index, TrafficFilterGetRequest::ingress).await
    }

    async fn filters(
        &self,
        index: u32,
        at: impl FnOnce(TrafficFilterGetRequest) -> TrafficFilterGetRequest,
    ) -> Result<Vec<TcFilter>, NetlinkError> {
        let Ok(index) = i32::try_from(index) else {
            return Ok(Vec::new());
        };
        let request = at(self.handle.traffic_filter(index).get());
        let messages: Result<Vec<_>, _> = request.execute().try_collect().await;
        match messages.map_err(|error| refused("list filters".to_owned(), error)) {
            Ok(messages) => Ok(messages.iter().filter_map(TcFilter::of).collect()),
            // No interface, or none with filters.
            Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::EINVAL | Errno::ENOENT)) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}
