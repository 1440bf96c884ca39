//! `GET /v1/invite`

use std::fmt::Write as _;

use qrcodegen::{QrCode as Symbol, QrCodeEcc};
use serde::{Deserialize, Serialize};

use super::Resource;

/// Modules of light ground that a reader needs around a code (ISO/IEC 18004).
const QUIET: i32 = 4;

/// The invite to the node, as the command `invite` prints it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct InviteStatus {
    /// Invite.
    pub invite: Option<String>,
    /// Why there is none.
    pub problem: Option<String>,
    /// Addresses at which it says that the node is dialled.
    pub addresses: Vec<String>,
    /// Prefixes that it says are behind the node.
    pub allowed_ips: Vec<String>,
    /// Picture of the invite.
    pub qr: Option<QrCode>,
}

/// A QR code as a drawing.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct QrCode {
    /// Modules on each side, without the light ground around them.
    pub size: u32,
    /// Path of an SVG drawing that fills the dark modules, each of 1 by 1.
    pub path: String,
}

impl InviteStatus {
    /// Returns the status of a node that has no invite.
    pub(crate) fn without(problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

impl QrCode {
    /// Draws a text; `None` if it is too long.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let symbol = Symbol::encode_text(text, QrCodeEcc::Medium).ok()?;
        let mut path = String::new();
        for y in 0..symbol.size() {
            let mut x = 0;
            while x < symbol.size() {
                let dark = (x..symbol.size())
                    .take_while(|x| symbol.get_module(*x, y))
                    .count();
                if dark > 0 {
                    // Writing to a string does not fail.
                    let _ = write!(path, "M{x} {y}h{dark}v1h-{dark}z");
                }
                x += dark as i32 + 1;
            }
        }
        Some(Self {
            size: symbol.size() as u32,
            path,
        })
    }

    /// Returns the drawing as lines for a terminal, of two modules above each other in a character, dark on light whatever
    /// the terminal's colours are.
    pub(crate) fn lines(&self) -> String {
        let dark = self.modules();
        let (low, high) = (-QUIET, self.size as i32 + QUIET);
        let is_dark = |x: i32, y: i32| dark.contains(&(x, y));
        let mut text = String::new();
        for y in (low..high).step_by(2) {
            text.push_str("\x1b[30;107m");
            text.extend((low..high).map(|x| match (is_dark(x, y), is_dark(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            }));
            text.push_str("\x1b[0m\n");
        }
        text
    }

    /// Returns the places of the dark modules.
    fn modules(&self) -> std::collections::HashSet<(i32, i32)> {
        let runs = self.path.split('M').skip(1).filter_map(|run| {
            let (x, rest) = run.split_once(' ')?;
            let (y, rest) = rest.split_once('h')?;
            let (length, _) = rest.split_once('v')?;
            let (x, y, length) = (
                x.parse::<i32>().ok()?,
                y.parse().ok()?,
                length.parse::<i32>().ok()?,
            );
            Some((x..x + length).map(move |x| (x, y)))
        });
        runs.flatten().collect()
    }
}

impl Resource for InviteStatus {
    const PATH: &'static str = "/v1/invite";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_has_every_dark_module_and_no_other() {
        let text = "sr1JAAkCAESIKvJ";
        let symbol = Symbol::encode_text(text, QrCodeEcc::Medium).unwrap();

        let drawn = QrCode::of(text).unwrap();

        let modules = drawn.modules();
        assert_eq!(drawn.size, symbol.size() as u32);
        for (x, y) in (0..symbol.size()).flat_map(|y| (0..symbol.size()).map(move |x| (x, y))) {
            assert_eq!(modules.contains(&(x, y)), symbol.get_module(x, y), "{x} {y}");
        }
        let allowed = |c: char| c.is_ascii_digit() || "Mhvz- ".contains(c);
        assert!(drawn.path.chars().all(allowed), "{}", drawn.path);
        assert_eq!(QrCode::of(&"x".repeat(5000)), None);
    }

    #[test]
    fn a_terminal_shows_it_dark_on_light_with_ground_around_it() {
        let drawn = QrCode {
            size: 3,
            path: "M0 0h3v1h-3zM1 1h1v1h-1z".to_owned(),
        };

        let text = drawn.lines();

        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[2], "\x1b[30;107m    ▀█▀    \x1b[0m");
        assert_eq!(lines[0], format!("\x1b[30;107m{}\x1b[0m", " ".repeat(11)));
    }
}
