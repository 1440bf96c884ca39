//! How much of a stream may be on its way, on both of its sides.

use super::Violation;

/// Bytes that a stream may have unread from its start on.
pub(super) const FIRST_WINDOW: u32 = 256 * 1024;

/// Most bytes that a stream may have unread, once its reader has shown that it keeps up.
pub(super) const MOST_WINDOW: u32 = 16 * 1024 * 1024;

/// Bytes that all streams of a connection together may have unread beyond their first windows.
pub(super) const MOST_LENT: u32 = 32 * 1024 * 1024;

/// Most bytes that a sender lets itself be allowed.
const MOST_CREDIT: u32 = 1 << 30;

/// The receiving side of a stream.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    size: u32,
    /// Bytes that the sender may still send.
    n_left: u32,
    /// Bytes that were read, and that the sender does not know of.
    n_read: u32,
    /// Whether the sender has used all that it was allowed.
    is_short: bool,
}

/// The sending side of a stream.
#[derive(Debug)]
pub(super) struct SendCredit {
    n_left: u32,
    /// Whether the receiver was told that it is used up.
    has_asked: bool,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self {
            size: FIRST_WINDOW,
            n_left: FIRST_WINDOW,
            n_read: 0,
            is_short: false,
        }
    }
}

impl ReceiveWindow {
    /// Takes note of bytes that have come.
    pub(super) fn handle_data(&mut self, n: usize) -> Result<(), Violation> {
        let n = u32::try_from(n).map_err(|_error| Violation::Window)?;
        self.n_left = self.n_left.checked_sub(n).ok_or(Violation::Window)?;
        Ok(())
    }

    /// Takes note of bytes that were read.
    pub(super) fn handle_read(&mut self, n: usize) {
        self.n_read += n as u32;
    }

    /// Takes note that the sender would send more if it might.
    pub(super) fn handle_blocked(&mut self) {
        self.is_short = true;
    }

    /// Returns how many bytes more the sender may be allowed now, if it is worth telling. A window whose reader keeps up
    /// grows, by no more than `n_lendable`.
    pub(super) fn grant(&mut self, is_all_read: bool, n_lendable: u32) -> Option<Grant> {
        let mut n_lent = 0;
        if self.is_short && is_all_read {
            n_lent = self.size.min(MOST_WINDOW - self.size).min(n_lendable);
            self.size += n_lent;
            self.is_short = false;
        }
        if n_lent == 0 && self.n_read < self.size / 2 {
            return None;
        }
        let n = std::mem::take(&mut self.n_read) + n_lent;
        self.n_left += n;
        Some(Grant { n, n_lent })
    }

    /// Returns how many bytes the window has been lent.
    pub(super) fn n_lent(&self) -> u32 {
        self.size - FIRST_WINDOW
    }
}

/// What a sender is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Bytes that it may send more.
    pub(super) n: u32,
    /// Those among them by which the window has grown.
    pub(super) n_lent: u32,
}

impl Default for SendCredit {
    fn default() -> Self {
        Self {
            n_left: FIRST_WINDOW,
            has_asked: false,
        }
    }
}

impl SendCredit {
    /// Returns how many bytes may be sent.
    pub(super) fn n_left(&self) -> usize {
        self.n_left as usize
    }

    /// Takes note of bytes that were sent: no more than may be.
    pub(super) fn handle_sent(&mut self, n: usize) {
        self.n_left -= n as u32;
    }

    /// Says whether the receiver is to be told that there is more to send.
    pub(super) fn asks(&mut self) -> bool {
        self.n_left == 0 && !std::mem::replace(&mut self.has_asked, true)
    }

    /// Takes note of what the receiver allows.
    pub(super) fn handle_grant(&mut self, n: u32) -> Result<(), Violation> {
        let n_left = self.n_left.checked_add(n).filter(|n_left| *n_left <= MOST_CREDIT);
        self.n_left = n_left.filter(|_| n > 0).ok_or(Violation::Credit)?;
        self.has_asked = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_once_half_of_the_window_was_read() {
        let mut window = ReceiveWindow::default();
        let half = FIRST_WINDOW as usize / 2;
        assert_eq!(window.handle_data(half + 1), Ok(()));

        window.handle_read(half - 1);
        assert_eq!(window.grant(false, MOST_LENT), None);
        window.handle_read(2);

        let n = FIRST_WINDOW / 2 + 1;
        assert_eq!(window.grant(true, MOST_LENT), Some(Grant { n, n_lent: 0 }));
        assert_eq!(window.grant(true, MOST_LENT), None);
        assert_eq!(window.handle_data(FIRST_WINDOW as usize), Ok(()));
    }

    #[test]
    fn more_than_the_window_is_a_violation() {
        let mut window = ReceiveWindow::default();

        assert_eq!(window.handle_data(FIRST_WINDOW as usize), Ok(()));
        assert_eq!(window.handle_data(1), Err(Violation::Window));
    }

    #[test]
    fn a_window_grows_while_its_reader_keeps_up_and_something_is_to_be_lent() {
        let mut window = ReceiveWindow::default();
        window.handle_blocked();
        assert_eq!(window.grant(false, MOST_LENT), None, "its reader stands still");

        let n = FIRST_WINDOW;
        assert_eq!(window.grant(true, MOST_LENT), Some(Grant { n, n_lent: n }));
        assert_eq!(window.grant(true, MOST_LENT), None, "nobody asks");
        window.handle_blocked();
        assert_eq!(window.grant(true, 5), Some(Grant { n: 5, n_lent: 5 }));
        assert_eq!(window.n_lent(), FIRST_WINDOW + 5);
        for _ in 0..20 {
            window.handle_blocked();
            window.grant(true, MOST_LENT);
        }
        assert_eq!(window.n_lent(), MOST_WINDOW - FIRST_WINDOW);
    }

    #[test]
    fn a_sender_asks_once_each_time_that_it_has_nothing_left() {
        let mut credit = SendCredit::default();
        assert!(!credit.asks());
        credit.handle_sent(FIRST_WINDOW as usize);

        assert_eq!([credit.asks(), credit.asks()], [true, false]);
        assert_eq!(credit.handle_grant(7), Ok(()));
        assert_eq!(credit.n_left(), 7);
        credit.handle_sent(7);
        assert!(credit.asks());
    }

    #[test]
    fn a_grant_of_nothing_or_of_too_much_is_a_violation() {
        let mut credit = SendCredit::default();

        assert_eq!(credit.handle_grant(0), Err(Violation::Credit));
        assert_eq!(
            credit.handle_grant(MOST_CREDIT - FIRST_WINDOW + 1),
            Err(Violation::Credit)
        );
        assert_eq!(credit.handle_grant(MOST_CREDIT - FIRST_WINDOW), Ok(()));
        assert_eq!(credit.handle_grant(u32::MAX), Err(Violation::Credit));
    }
}
