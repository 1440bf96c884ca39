//! Starts a process in a network namespace.
//!
//! `ip netns exec` would give the process its own `/sys`, where bpffs and its pins are not visible.
#![expect(unsafe_code, reason = "pre_exec runs code between fork and exec")]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Makes the process start in the namespace, and get SIGTERM when the thread that starts it ends.
pub(super) fn confine(command: &mut Command, netns: Arc<File>) {
    let enter = move || {
        setns(&*netns, CloneFlags::CLONE_NEWNET)?;
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

/// Makes the process get SIGTERM when the thread that starts it ends.
pub(super) fn end_with_parent(command: &mut Command) {
    let ask = || Ok(prctl::set_pdeathsig(Signal::SIGTERM)?);
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(ask) };
}
