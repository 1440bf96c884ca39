//! The niceness of a thread.
#![expect(unsafe_code, reason = "makes a system call")]

use std::io;

use nix::errno::Errno;
use nix::libc;

/// Sets the niceness of the calling thread.
///
/// # Errors
/// The thread may not go before others.
pub(super) fn set_niceness(niceness: i32) -> io::Result<()> {
    const CALLING_THREAD: libc::id_t = 0;
    // SAFETY: it takes numbers only.
    let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, CALLING_THREAD, niceness) };
    Ok(Errno::result(set).map(drop)?)
}
