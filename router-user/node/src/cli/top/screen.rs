//! Takes the terminal, and gives it back as it was, however the program ends.

use std::io::{self, Stdout, Write, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

/// Whether the terminal is taken: a panic after it was given back leaves it alone.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal of the process, given back on drop and on a panic.
#[derive(Debug)]
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Standard output is no terminal that can be taken.
    pub(super) fn take() -> io::Result<Self> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First: on the other screen nobody would see the message. A release build aborts and drops nothing.
            give_back();
            hook(info);
        }));
        // Before the first change, so that a failure half-way is undone too.
        TAKEN.store(true, Ordering::Relaxed);
        Self::enter().inspect_err(|_| give_back())
    }

    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Self(Terminal::new(CrosstermBackend::new(stdout()))?))
    }

    /// Draws what `draw` draws.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once. Errors are ignored: they mean that the terminal is gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = stdout().flush();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use xtask::lab::{ScratchDir, Terminal};

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let directory = ScratchDir::unique("screen").unwrap();
        let terminal = Terminal::start(directory.path(), 120, 24).unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let program = std::env::current_exe().unwrap().display().to_string();

        let test = format!(
            "{}::panics_on_the_screen",
            module_path!().split_once("::").unwrap().1
        );
        let line = format!(
            "stty -g > {}; RUST_BACKTRACE=0 {program} --ignored --nocapture --exact {test}; stty -g > {}; echo the-$((1))-end",
            file("before"),
            file("after"),
        );
        terminal.type_text(&line).unwrap();
        terminal.press("Enter").unwrap();

        let ended = |screen: &str| screen.contains("the-1-end") && screen.contains("gone wrong");
        terminal.wait_for("the message after the end", ended).unwrap();
        let [before, after] = ["before", "after"].map(|name| fs::read_to_string(file(name)).unwrap());
        assert_eq!(after, before);
        assert!(terminal.shows_cursor().unwrap());
    }

    #[test]
    #[ignore = "it panics: the test above runs it in a terminal of its own"]
    fn panics_on_the_screen() {
        let mut screen = Screen::take().unwrap();
        screen
            .draw(|frame| frame.render_widget("taken", frame.area()))
            .unwrap();
        panic!("gone wrong");
    }
}
