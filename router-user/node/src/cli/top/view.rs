//! What the user has chosen with the keys.

use std::ops::RangeInclusive;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::{Order, RowPeer};
use super::filter::Filter;
use super::panes::Pane;

/// Allowed intervals. A shorter one would be a load for the node, with a longer one the view would not be live.
pub(super) const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(60);

/// Intervals that `+` and `-` step through.
const STEPS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Most characters of a filter, more than any peer id or prefix has.
const MAX_FILTER_CHARS: usize = 64;

/// Whether the view goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOutcome {
    Stay,
    Quit,
}

/// Pane, order, filter and interval of the view.
#[derive(Debug)]
pub(super) struct View {
    pane: Pane,
    interval: Duration,
    is_paused: bool,
    is_help: bool,
    filter: Filter,
    page: Option<PeerPage>,
    /// Text of the filter while it is typed.
    typed: Option<String>,
    lists: [ListState; Pane::ALL.len()],
}

/// The page of a peer, which has taken the place of the panes.
#[derive(Debug)]
struct PeerPage {
    id: String,
    /// Lets through what is of the peer.
    filter: Filter,
    /// The pane that it was opened from.
    from: Pane,
}

/// What the user has chosen for one pane.
#[derive(Clone, Debug)]
struct ListState {
    order: Order,
    /// The row that is chosen, and its peer, if it is of one, as they were drawn last.
    chosen: usize,
    chosen_peer: Option<RowPeer>,
    /// The first row that is shown.
    offset: usize,
    /// Number of rows, and of those that there was room for, when the pane was drawn last.
    n_rows: usize,
    n_shown: usize,
}

impl View {
    pub(super) fn new(interval: Duration) -> Self {
        let list = |pane: Pane| ListState {
            order: pane.first_order(),
            chosen: 0,
            chosen_peer: None,
            offset: 0,
            n_rows: 0,
            n_shown: 0,
        };
        Self {
            pane: Pane::Peers,
            interval,
            is_paused: false,
            is_help: false,
            filter: Filter::default(),
            page: None,
            typed: None,
            lists: Pane::ALL.map(list),
        }
    }

    /// Returns the pane that has the keys.
    pub(super) fn pane(&self) -> Pane {
        self.pane
    }

    /// Returns the time between two requests to the node.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Returns whether the node is not asked.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Returns whether the keys are explained.
    pub(super) fn is_help(&self) -> bool {
        self.is_help
    }

    /// Returns the filter: that of the peer whose page is open, or else the one that was typed.
    pub(super) fn filter(&self) -> &Filter {
        self.page.as_ref().map_or(&self.filter, |page| &page.filter)
    }

    /// Returns the id of the peer whose page is open.
    pub(super) fn page(&self) -> Option<&str> {
        self.page.as_ref().map(|page| page.id.as_str())
    }

    /// Returns the panes to choose from.
    pub(super) fn panes(&self) -> &'static [Pane] {
        match self.page {
            Some(_) => &Pane::OF_PEER,
            None => &Pane::ALL,
        }
    }

    /// Returns the text of the filter while it is typed.
    pub(super) fn typed(&self) -> Option<&str> {
        self.typed.as_deref()
    }

    /// Returns the order of a pane.
    pub(super) fn order(&self, pane: Pane) -> Order {
        self.list(pane).order
    }

    /// Returns whether flows are shown, for which the node reads its whole table.
    pub(super) fn wants_flows(&self) -> bool {
        self.pane == Pane::Flows || self.page.is_some()
    }

    /// Returns the first row to show of the `n_rows` of a pane that has room for `n_shown`: the chosen one is among them.
    pub(super) fn scrolled(&mut self, pane: Pane, n_rows: usize, n_shown: usize) -> usize {
        let list = self.list_mut(pane);
        (list.n_rows, list.n_shown) = (n_rows, n_shown);
        list.chosen = list.chosen.min(list.last());
        let first = (list.chosen + 1).saturating_sub(n_shown);
        list.offset = list.offset.clamp(first, first.max(list.chosen));
        list.offset = list.offset.min(n_rows.saturating_sub(n_shown));
        list.offset
    }

    /// Returns the row of a pane that is chosen.
    pub(super) fn chosen(&self, pane: Pane) -> usize {
        self.list(pane).chosen
    }

    /// Says of which peer the chosen row of a pane is.
    pub(super) fn set_chosen_peer(&mut self, pane: Pane, peer: Option<RowPeer>) {
        self.list_mut(pane).chosen_peer = peer;
    }

    /// Handles a key.
    pub(super) fn handle_key(&mut self, key: KeyEvent) -> KeyOutcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.handle_control(key.code);
        }
        if self.typed.is_some() {
            self.handle_typed(key.code);
            return KeyOutcome::Stay;
        }
        if self.is_help {
            // Any key has been looked for there.
            self.is_help = false;
            if key.code != KeyCode::Char('q') {
                return KeyOutcome::Stay;
            }
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return KeyOutcome::Quit,
            KeyCode::Esc => self.go_back(),
            KeyCode::Enter => self.open_page(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_help = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            // The page has the filter that it is made of.
            KeyCode::Char('/') if self.page.is_none() => self.typed = Some(self.filter.text().to_owned()),
            KeyCode::Char('s') => self.next_order(),
            KeyCode::Char('r') => {
                let order = &mut self.list_mut(self.pane).order;
                order.reversed = !order.reversed;
            }
            KeyCode::Char('+' | '=') => self.step(STEPS.iter().find(|step| **step > self.interval)),
            KeyCode::Char('-' | '_') => self.step(STEPS.iter().rfind(|step| **step < self.interval)),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.next_pane(1),
            KeyCode::BackTab | KeyCode::Left => self.next_pane(self.panes().len() - 1),
            KeyCode::Char(digit @ '1'..='9') => {
                let index = digit.to_digit(10).unwrap_or(0) as usize;
                if let Some(pane) = Pane::ALL.get(index.wrapping_sub(1)) {
                    self.pane = *pane;
                    // A pane that the page has none of is that of all peers.
                    self.page.take_if(|_| !Pane::OF_PEER.contains(pane));
                }
            }
            code => self.scroll(code),
        }
        KeyOutcome::Stay
    }

    /// Opens the page of the chosen row's peer.
    fn open_page(&mut self) {
        let Some(peer) = self.list(self.pane).chosen_peer.clone() else {
            return;
        };
        if self.page.is_some() {
            return;
        }
        self.page = Some(PeerPage {
            id: peer.id.clone(),
            filter: Filter::of_peer(peer),
            from: self.pane,
        });
        self.pane = Pane::Flows;
    }

    /// Leaves the page of a peer, or else takes the filter away.
    fn go_back(&mut self) {
        match self.page.take() {
            Some(page) => self.pane = page.from,
            None => self.filter = Filter::default(),
        }
    }

    /// Chooses the pane `n` places further on.
    fn next_pane(&mut self, n: usize) {
        let panes = self.panes();
        let at = panes.iter().position(|pane| *pane == self.pane).unwrap_or(0);
        if let Some(pane) = panes.get((at + n) % panes.len()) {
            self.pane = *pane;
        }
    }

    fn handle_control(&mut self, code: KeyCode) -> KeyOutcome {
        match (code, &mut self.typed) {
            (KeyCode::Char('c'), _) => return KeyOutcome::Quit,
            (KeyCode::Char('u'), Some(typed)) => typed.clear(),
            _ => {}
        }
        KeyOutcome::Stay
    }

    fn handle_typed(&mut self, code: KeyCode) {
        let Some(typed) = &mut self.typed else {
            return;
        };
        match code {
            KeyCode::Char(c) if typed.chars().count() < MAX_FILTER_CHARS => typed.push(c),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Enter => {
                self.filter = Filter::new(typed);
                self.typed = None;
            }
            KeyCode::Esc => self.typed = None,
            _ => {}
        }
    }

    fn step(&mut self, to: Option<&Duration>) {
        self.interval = *to.unwrap_or(&self.interval);
    }

    fn next_order(&mut self) {
        let n_columns = self.pane.columns().len();
        let list = self.list_mut(self.pane);
        list.order = Order {
            column: (list.order.column + 1) % n_columns,
            reversed: false,
        };
        list.chosen = 0;
    }

    fn scroll(&mut self, code: KeyCode) {
        let list = self.list_mut(self.pane);
        let page = list.n_shown.max(1);
        let chosen = match code {
            KeyCode::Down | KeyCode::Char('j') => list.chosen.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => list.chosen.saturating_sub(1),
            KeyCode::PageDown => list.chosen.saturating_add(page),
            KeyCode::PageUp => list.chosen.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return,
        };
        list.chosen = chosen.min(list.last());
    }

    fn list(&self, pane: Pane) -> &ListState {
        &self.lists[pane as usize]
    }

    fn list_mut(&mut self, pane: Pane) -> &mut ListState {
        &mut self.lists[pane as usize]
    }
}

impl ListState {
    fn last(&self) -> usize {
        self.n_rows.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn view() -> View {
        View::new(Duration::from_secs(1))
    }

    fn press(view: &mut View, code: KeyCode) -> KeyOutcome {
        view.handle_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn type_text(view: &mut View, text: &str) {
        for c in text.chars() {
            assert_eq!(press(view, KeyCode::Char(c)), KeyOutcome::Stay);
        }
    }

    fn control(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)
    }

    #[test]
    fn tab_and_digits_choose_a_pane() {
        let mut view = view();
        let mut seen = Vec::new();
        for _ in 0..Pane::ALL.len() {
            seen.push(view.pane());
            press(&mut view, KeyCode::Tab);
        }
        assert_eq!((seen, view.pane()), (Pane::ALL.to_vec(), Pane::Peers));
        press(&mut view, KeyCode::BackTab);
        assert_eq!(view.pane(), Pane::Drops);
        for (digit, pane) in ('1'..).zip(Pane::ALL) {
            press(&mut view, KeyCode::Char(digit));
            assert_eq!(view.pane(), pane);
        }
        press(&mut view, KeyCode::Char('6'));
        assert_eq!(view.pane(), Pane::Drops);
    }

    #[test]
    fn each_pane_has_an_order_of_its_own() {
        let mut view = view();
        let first = view.order(Pane::Peers);

        press(&mut view, KeyCode::Char('s'));
        press(&mut view, KeyCode::Char('r'));

        let n_columns = Pane::Peers.columns().len();
        let second = Order {
            column: (first.column + 1) % n_columns,
            reversed: true,
        };
        assert_eq!(view.order(Pane::Peers), second);
        assert_eq!(view.order(Pane::Flows), Pane::Flows.first_order());
        for _ in 1..n_columns {
            press(&mut view, KeyCode::Char('s'));
        }
        assert_eq!(view.order(Pane::Peers), first);
    }

    #[test]
    fn a_filter_holds_once_it_is_entered() {
        let mut view = view();

        type_text(&mut view, "/10.42q?1");
        assert_eq!((view.typed(), view.filter().text()), (Some("10.42q?1"), ""));
        for _ in 0..3 {
            press(&mut view, KeyCode::Backspace);
        }
        press(&mut view, KeyCode::Enter);
        assert_eq!((view.typed(), view.filter().text()), (None, "10.42"));

        type_text(&mut view, "/x");
        assert_eq!(view.typed(), Some("10.42x"));
        assert_eq!(press(&mut view, KeyCode::Esc), KeyOutcome::Stay);
        assert_eq!((view.typed(), view.filter().text()), (None, "10.42"));

        type_text(&mut view, "/");
        view.handle_key(control('u'));
        press(&mut view, KeyCode::Enter);
        assert_eq!(view.filter(), &Filter::default());
    }

    #[test]
    fn help_goes_with_any_key_and_escape_leaves_the_filter_but_not_the_view() {
        let mut view = view();
        type_text(&mut view, "?");
        assert!(view.is_help());
        assert_eq!(press(&mut view, KeyCode::Esc), KeyOutcome::Stay);
        assert!(!view.is_help());
        type_text(&mut view, "/x");
        press(&mut view, KeyCode::Enter);
        for _ in 0..2 {
            assert_eq!(press(&mut view, KeyCode::Esc), KeyOutcome::Stay);
            assert_eq!(view.filter(), &Filter::default());
        }
        assert_eq!(press(&mut view, KeyCode::F(10)), KeyOutcome::Quit);
        assert_eq!(press(&mut view, KeyCode::Char('q')), KeyOutcome::Quit);
        assert_eq!(view.handle_key(control('c')), KeyOutcome::Quit);
        type_text(&mut view, "/");
        assert_eq!(view.handle_key(control('c')), KeyOutcome::Quit);
        press(&mut view, KeyCode::Esc);
        type_text(&mut view, "?");
        assert_eq!(press(&mut view, KeyCode::Char('q')), KeyOutcome::Quit);
    }

    #[test]
    fn plus_and_minus_step_through_the_intervals() {
        let mut view = View::new(Duration::from_millis(1500));
        press(&mut view, KeyCode::Char('+'));
        assert_eq!(view.interval(), Duration::from_secs(2));
        for _ in 0..10 {
            press(&mut view, KeyCode::Char('-'));
        }
        assert_eq!(view.interval(), *INTERVALS.start());
        for _ in 0..10 {
            press(&mut view, KeyCode::Char('+'));
        }
        assert_eq!(view.interval(), *INTERVALS.end());
    }

    #[test]
    fn the_chosen_row_moves_as_far_as_it_goes_and_is_always_shown() {
        let mut view = view();
        assert_eq!(view.scrolled(Pane::Peers, 25, 10), 0);
        for (code, chosen, offset) in [
            (KeyCode::Up, 0, 0),
            (KeyCode::Down, 1, 0),
            (KeyCode::PageDown, 11, 2),
            (KeyCode::PageDown, 21, 12),
            (KeyCode::PageDown, 24, 15),
            (KeyCode::Down, 24, 15),
            (KeyCode::Up, 23, 15),
            (KeyCode::PageUp, 13, 13),
            (KeyCode::Home, 0, 0),
            (KeyCode::End, 24, 15),
        ] {
            press(&mut view, code);
            assert_eq!(view.scrolled(Pane::Peers, 25, 10), offset, "{code}");
            assert_eq!(view.chosen(Pane::Peers), chosen, "{code}");
        }
        assert_eq!(view.scrolled(Pane::Peers, 12, 10), 2);
        assert_eq!(view.scrolled(Pane::Peers, 3, 10), 0);
        assert_eq!(view.chosen(Pane::Peers), 2);
    }

    #[test]
    fn enter_opens_the_page_of_the_chosen_peer_and_escape_leaves_it() {
        let mut view = view();
        press(&mut view, KeyCode::Enter);
        assert_eq!((view.pane(), view.page()), (Pane::Peers, None));
        type_text(&mut view, "/pa");
        press(&mut view, KeyCode::Enter);
        let paris = RowPeer {
            id: "12D3KooWParis".to_owned(),
            name: "paris".to_owned(),
        };

        view.set_chosen_peer(Pane::Peers, Some(paris.clone()));
        press(&mut view, KeyCode::Enter);

        assert_eq!(view.filter(), &Filter::of_peer(paris.clone()));
        assert_eq!((view.pane(), view.page()), (Pane::Flows, Some("12D3KooWParis")));
        assert!(view.wants_flows());
        type_text(&mut view, "/");
        assert_eq!(view.typed(), None);
        for pane in [Pane::Streams, Pane::Flows] {
            press(&mut view, KeyCode::Tab);
            assert_eq!(view.pane(), pane);
        }
        press(&mut view, KeyCode::BackTab);
        press(&mut view, KeyCode::Char('4'));
        view.set_chosen_peer(Pane::Flows, Some(paris.clone()));
        press(&mut view, KeyCode::Enter);
        assert_eq!((view.pane(), view.page()), (Pane::Flows, Some("12D3KooWParis")));
        press(&mut view, KeyCode::Esc);
        assert_eq!((view.pane(), view.page()), (Pane::Peers, None));
        assert_eq!(view.filter().text(), "pa");

        press(&mut view, KeyCode::Enter);
        press(&mut view, KeyCode::Char('2'));
        assert_eq!((view.pane(), view.page()), (Pane::Workers, None));
    }

    #[test]
    fn flows_are_asked_for_only_while_they_are_looked_at() {
        let mut view = view();
        assert!(!view.wants_flows());
        press(&mut view, KeyCode::Char('4'));
        assert!(view.wants_flows());
        type_text(&mut view, "p");
        assert!(view.is_paused());
    }

    fn any_code() -> impl Strategy<Value = KeyCode> {
        prop_oneof![
            8 => any::<char>().prop_map(KeyCode::Char),
            8 => proptest::sample::select("qhspr/+-12345?jkgGlu ".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
            8 => proptest::sample::select(vec![
                KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Backspace, KeyCode::Up,
                KeyCode::Down, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End, KeyCode::Left,
                KeyCode::Right, KeyCode::F(1), KeyCode::Delete,
            ]),
        ]
    }

    proptest! {
        #[test]
        fn no_keys_lead_out_of_bounds(
            keys in vec((any_code(), any::<bool>(), 0..50_usize, 0..20_usize), 0..200),
        ) {
            let mut view = view();
            for (code, control, n_rows, n_shown) in keys {
                let modifiers = if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
                view.handle_key(KeyEvent::new(code, modifiers));

                let pane = view.pane();
                prop_assert!(view.scrolled(pane, n_rows, n_shown) <= n_rows.saturating_sub(n_shown));
                prop_assert!(view.chosen(pane) <= n_rows);
                prop_assert!(view.order(pane).column < pane.columns().len());
                prop_assert!(INTERVALS.contains(&view.interval()));
                prop_assert!(view.typed().is_none_or(|typed| typed.chars().count() <= MAX_FILTER_CHARS));
            }
        }
    }
}
