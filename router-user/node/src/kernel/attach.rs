//! The egress hook: a clsact qdisc with our program, by netlink.

use std::io;

use aya::programs::tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};

use super::error::KernelError;

/// Priority before which there is none; of filters with the same the newest comes first.
const FIRST: u16 = 1;

/// Attaches `program` to the egress of `device`, before all filters; qdisc and filter end with the
/// device.
///
/// Not by TCX, which takes "stolen" for "next" and lets the packet reach the device as well.
pub(super) fn attach_egress(
    program: &mut SchedClassifier,
    device: &str,
) -> Result<SchedClassifierLinkId, KernelError> {
    let failed = |source| KernelError::Attach {
        device: device.to_owned(),
        source,
    };
    match tc::qdisc_add_clsact(device) {
        Err(error) if !already_there(&error) => return Err(failed(Box::new(error))),
        _ => {}
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: FIRST,
        ..NlOptions::default()
    });
    program
        .attach_with_options(device, TcAttachType::Egress, options)
        .map_err(|error| failed(Box::new(error)))
}

fn already_there(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
