//! What a tone looks like in the terminal.

use ratatui::style::{Color, Modifier, Style};

use crate::cli::top::columns::Tone;

/// Returns the style of a text with this tone. Colours have names, so every terminal shows them as its user likes.
pub(super) fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}
