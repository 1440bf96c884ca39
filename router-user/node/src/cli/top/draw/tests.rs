//! What stands on the screen, at every size.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::top::tests::{PEER_A, failure, model, sample};

struct TestView {
    model: Model,
    view: View,
    now: Duration,
}

impl TestView {
    /// A node that was looked at for ten seconds.
    fn new() -> Self {
        Self {
            model: model(10),
            view: View::new(Duration::from_secs(1)),
            now: Duration::from_millis(10_200),
        }
    }

    fn press(&mut self, keys: &str) {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            self.view.handle_key(KeyEvent::new(code, KeyModifiers::NONE));
        }
    }

    fn screen(&mut self, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = terminal.draw(|frame| draw(frame, &self.model, &mut self.view, self.now));
        let buffer = drawn.unwrap().buffer.clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }
}

#[track_caller]
fn assert_has(screen: &[String], parts: &[&str]) {
    for part in parts {
        assert!(
            screen.iter().any(|line| line.contains(part)),
            "no {part:?} in\n{}",
            screen.join("\n")
        );
    }
}

#[test]
fn eighty_by_twenty_four_shows_all_that_matters() {
    let mut test = TestView::new();

    let screen = test.screen(80, 24);

    assert!(
        screen[0].starts_with("sr0 wnOwnOwn  peers 1/2  workers 4  up 1m 10s"),
        "{}",
        screen[0]
    );
    assert!(screen[0].ends_with("every 1 s"), "{}", screen[0]);
    assert!(
        screen[1].starts_with("┌ sent 8.00 Mbit/s, all 9.5 MiB ─"),
        "{}",
        screen[1]
    );
    assert!(
        screen[1].contains("┌ received 16.0 kbit/s, all 19.5 KiB ─"),
        "{}",
        screen[1]
    );
    assert_has(&screen, &["2:32 min, 0 to 8.00 Mbit/s", "█"]);
    assert_eq!(
        screen[8],
        " 1 Peers  2 Workers  3 Streams  4 Flows  5 Drops                         2 peers"
    );
    assert!(screen[9].starts_with("PEER     STATE "), "{}", screen[9]);
    assert!(screen[10].starts_with("4kx6nXTN"), "{}", screen[10]);
    assert_has(&screen, &["connecting", "8.00 Mbit/s", "0.25 ms"]);
    assert!(screen[23].contains("q quit"), "{}", screen[23]);
}

#[test]
fn each_pane_is_there_at_eighty_columns() {
    let mut test = TestView::new();
    for (key, parts) in [
        (
            "2",
            &[
                "WORKER▲",
                "active",
                "░░░░░░░░░░   0 %",
                "█████████░  90 %",
                "1.00k/s",
                "800 kbit/s",
                "sr-data-0",
            ][..],
        ),
        ("3", &["STREAM", "QUEUED▼", "4.0 KiB", "5.0/s", "held", "closed"]),
        (
            "4",
            &[
                "DESTINATION",
                "TX",
                "RX",
                " by rate",
                "10.42.0.1:40000",
                "10.42.0.2:443",
                "[fd42::2]:22",
                "8.00 Mbit/s 2.00 Mbit/s",
                "3 flows, 1234 live",
            ],
        ),
        ("5", &["REASON", "ring_full", "30.0/s", "what ring_full counts"]),
    ] {
        test.press(key);
        assert_has(&test.screen(80, 24), parts);
    }
}

#[test]
fn a_large_screen_shows_more_of_everything() {
    let mut test = TestView::new();

    let screen = test.screen(120, 40);

    assert_has(
        &screen,
        &[
            "2:54 min",
            "/ip4/192.0.2.1/tcp/4001",
            "10.42.1.0/24",
            "┌ Workers ",
            "┌ Drops ",
            "ring_full",
            "90 %",
        ],
    );
    test.press("5");
    assert_has(&test.screen(120, 40), &["┌ Workers ", "┌ Peers "]);
    assert_has(&test.screen(300, 100), &["4kx6nXTN", "┌ Workers "]);
}

#[test]
fn a_small_screen_shows_the_rows_alone() {
    let mut test = TestView::new();

    let screen = test.screen(20, 5);

    assert!(
        screen[0].starts_with("sr0") && screen[0].ends_with("every 1 s"),
        "{}",
        screen[0]
    );
    assert!(screen[2].starts_with("4kx6nXTN connected"), "{}", screen[2]);
    assert_has(&test.screen(40, 12), &[" 1 Peers ", "connecting", "8.00 Mbit/s"]);
}

#[test]
fn a_node_that_does_not_answer_is_said_to_be_silent() {
    let mut test = TestView::new();
    test.now = Duration::from_millis(12_900);
    assert!(!test.screen(80, 24).join("").contains("no answer"));

    test.now = Duration::from_secs(14);
    assert_has(
        &test.screen(80, 24),
        &["no answer for 4.0s, asking again", "8.00 Mbit/s"],
    );

    test.model.handle_failure(&failure());
    assert_has(
        &test.screen(80, 24),
        &["no answer for 4.0s, asking again: no node answers at /run/sr.sock"],
    );

    test.model.handle_sample(sample(14));
    assert!(!test.screen(80, 24).join("").contains("no answer"));
}

#[test]
fn a_paused_view_stands_still_and_says_so() {
    let mut test = TestView::new();
    test.press("p");
    let before = test.screen(80, 24);

    test.now += Duration::from_secs(60);

    assert!(before[0].ends_with("PAUSED"), "{}", before[0]);
    assert_eq!(test.screen(80, 24), before);
}

#[test]
fn a_filter_shows_while_it_is_typed_and_while_it_holds() {
    let mut test = TestView::new();

    test.press("/nobody");
    assert_has(&test.screen(80, 24), &["show only: nobody", "4kx6nXTN"]);

    test.press("\n");
    let screen = test.screen(80, 24);
    assert_has(&screen, &["only nobody", "nothing here fits the filter"]);
    assert!(!screen.join("").contains("4kx6nXTN"));
}

#[test]
fn enter_opens_a_page_of_all_that_is_of_a_peer() {
    let mut test = TestView::new();
    test.screen(80, 24);

    test.press("\n");
    let flows = test.screen(80, 24);
    test.press("3");
    let streams = test.screen(80, 24);
    test.press("\u{1b}");
    let peers = test.screen(80, 24);

    for (line, expected) in (1..).zip([
        "┌ 4kx6nXTN ─",
        &format!("│ id        {PEER_A}"),
        "│ vpn       10.42.1.0/24",
        "│ state     connected, handshake 3.0s ago",
        "│ path      tcp to 192.0.2.1:4001, round trip 0.25 ms",
        "│ addresses tcp 192.0.2.1:4001, quic [2001:db8::1]:4001 (dht), /dns4/berlin",
        "│ sent      8.00 Mbit/s, frames 1.00k/s, 9.5 MiB in all",
        "│ received  16.0 kbit/s, frames 10.0/s, 19.5 KiB in all",
        "│ streams   2 open, 8.0 KiB queued, 1 hold senders back",
        "│ drops     50 dropped (5.0/s), ",
        "└─",
        " 3 Streams  4 Flows ",
        "PROTO ",
    ]) {
        assert!(
            flows[line].starts_with(expected),
            "{expected}\n{}",
            flows.join("\n")
        );
    }
    assert_has(&flows, &["10.42.0.2:443", "3 flows", "Esc back"]);
    assert_has(&streams, &["QUEUED▼", "2 streams"]);
    assert_has(&peers, &["4kx6nXTN connected", "2 peers"]);
}

#[test]
fn the_page_of_a_peer_that_is_not_there_says_why_and_one_that_is_gone_that_it_is() {
    let mut test = TestView::new();
    test.screen(80, 24);
    test.press("j");
    test.screen(80, 24);
    test.press("\n");

    assert_has(
        &test.screen(80, 24),
        &[
            "┌ Paris ─",
            "state     connecting, ",
            "path      -",
            "no live flows with this peer",
        ],
    );

    let mut without = sample(11);
    without.peers.peers.pop();
    test.model.handle_sample(without);
    assert_has(&test.screen(80, 24), &["this peer is configured no more"]);
}

#[test]
fn the_chosen_row_is_marked_in_every_pane() {
    for key in ["2", "3", "4", "5"] {
        let mut test = TestView::new();
        test.press(key);
        test.screen(80, 24);
        test.press("j");

        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let drawn = terminal.draw(|frame| draw(frame, &test.model, &mut test.view, test.now));
        let buffer = drawn.unwrap().buffer.clone();

        let marked = (0..24).filter(|y| buffer[(0, *y)].modifier.contains(Modifier::REVERSED));
        // Below the tabs and the heading, the second.
        assert_eq!(marked.collect::<Vec<_>>(), [11], "{key}");
    }
}

#[test]
fn the_order_is_marked_and_named_where_its_column_is_not_shown() {
    let mut test = TestView::new();
    assert_has(&test.screen(80, 24), &["TX▼"]);
    test.press("r");
    assert_has(&test.screen(80, 24), &["TX▲"]);
    test.press("sssss");
    assert_has(&test.screen(64, 24), &[" by tx frames"]);
}

#[test]
fn help_explains_every_key() {
    let mut test = TestView::new();
    test.press("?");

    assert_has(
        &test.screen(80, 24),
        &["┌ Keys ", "sort by the next column", "q, F10, Ctrl-C"],
    );
}

#[test]
fn control_characters_of_an_error_do_not_reach_the_terminal() {
    let mut test = TestView::new();

    let screen = test.screen(120, 24).join("\n");

    assert!(
        screen.contains("connection refused") && !screen.contains('\u{1b}'),
        "{screen}"
    );
}

#[test]
fn before_the_first_answer_there_is_a_line() {
    let mut test = TestView::new();
    test.model = Model::default();

    assert_eq!(test.screen(80, 24)[0], "waiting for the node");
}

proptest! {
    // Each case draws up to eleven screens.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_size_and_no_key_is_a_panic(
        width in 0_u16..140,
        height in 0_u16..45,
        keys in "[qhspr/+12345?jkgG\\-x\n\u{1b}]{0,8}",
        is_silent in any::<bool>(),
    ) {
        let mut test = TestView::new();
        if is_silent {
            test.model.handle_failure(&failure());
        }
        for key in keys.chars() {
            test.press(&key.to_string());
            test.screen(width, height);
        }
        test.screen(width / 2, height / 2);
        test.screen(width * 2, height * 2);
    }
}
