//! Why a running node cannot go on.

use thiserror::Error;

/// What has become of the device of a running node, which cannot be put back.
#[derive(Debug, Error)]
pub enum DeviceLost {
    /// The device was deleted.
    #[error("the device {name} was deleted by somebody else")]
    Deleted {
        /// Name of the device.
        name: String,
    },
    /// The device was moved.
    #[error("the device {name} was moved to another network namespace by somebody else")]
    Moved {
        /// Name of the device.
        name: String,
    },
}
