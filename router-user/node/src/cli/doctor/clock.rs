//! Checks the clock: handshakes work at any plausible time, but logs, captures and handshake ages are only as right as
//! it is.
#![expect(unsafe_code, reason = "adjtimex(2), which no crate we use wraps")]

use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;

use super::finding::Finding;

/// Earliest plausible time. Peers' certificates are valid from 1975 to 4096; a clock before this program was written is
/// not set.
const WRITTEN_AT_S: u64 = 1_767_225_600;

/// Checks the clock.
pub(super) fn check() -> Vec<Finding> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    vec![judge(since.as_secs(), is_synchronised())]
}

/// Returns whether the kernel was told that its clock follows another one; no permission is needed to ask.
fn is_synchronised() -> Result<bool, Errno> {
    // SAFETY: a structure of integers may be 0; `modes` 0 asks and sets nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to the structure, which is whole and ours.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    Errno::result(state).map(|state| state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

fn judge(now_s: u64, synchronised: Result<bool, Errno>) -> Finding {
    const CHECK: &str = "clock";
    const FIX: &str = "timedatectl set-ntp true";
    if now_s < WRITTEN_AT_S {
        return Finding::problem(
            CHECK,
            format!("it says {now_s} seconds since 1970, which is long past; peers may refuse the handshake"),
        )
        .fix(FIX);
    }
    match synchronised {
        Ok(true) => Finding::ok(CHECK, "synchronised"),
        Ok(false) => Finding::warning(
            CHECK,
            "no other clock keeps it right; the tunnel does not need that, but times of logs and captures do",
        )
        .fix(FIX),
        Err(errno) => Finding::unknown(
            CHECK,
            format!("the kernel does not say whether it is synchronised: {errno}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_a_problem_and_a_free_running_one_a_warning() {
        assert_eq!(judge(0, Ok(true)).verdict, Verdict::Problem);
        assert_eq!(judge(WRITTEN_AT_S, Ok(true)).verdict, Verdict::Ok);
        assert_eq!(judge(WRITTEN_AT_S, Ok(false)).verdict, Verdict::Warning);
        assert_eq!(judge(WRITTEN_AT_S, Err(Errno::EPERM)).verdict, Verdict::Unknown);
    }

    #[test]
    fn the_kernel_says_whether_it_is_synchronised() {
        is_synchronised().unwrap();
    }
}
