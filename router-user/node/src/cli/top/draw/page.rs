//! The head of the page of one peer.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::style::style;
use crate::cli::top::columns::Tone;
use crate::cli::top::model::NodeSnapshot;
use crate::cli::top::peer_page::{N_LINES, lines, title};

/// Height of the head, its border included.
pub(super) const HEIGHT: u16 = N_LINES as u16 + 2;

/// Width of a line's name.
const NAME: usize = 10;

/// Draws what is known of the peer.
pub(super) fn draw(frame: &mut Frame<'_>, snapshot: &NodeSnapshot, id: &str, area: Rect) {
    if area.is_empty() {
        return;
    }
    let name = Span::styled(
        format!(" {} ", title(snapshot, id)),
        Style::new().add_modifier(Modifier::BOLD),
    );
    let block = Block::bordered().title(name).border_style(style(Tone::Dim));
    let text: Vec<_> = match lines(snapshot, id) {
        Some(lines) => lines
            .into_iter()
            .map(|line| {
                Line::from(vec![
                    Span::styled(format!(" {:<NAME$}", line.name), style(Tone::Dim)),
                    Span::styled(line.text, style(line.tone)),
                ])
            })
            .collect(),
        None => vec![Line::styled(
            " this peer is configured no more",
            style(Tone::Warning),
        )],
    };
    frame.render_widget(Paragraph::new(text).block(block), area);
}
