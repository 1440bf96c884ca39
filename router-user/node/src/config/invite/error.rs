//! Why a text is no invite.

use super::format::{MAX_CHARS, VERSION, VERSION_DNS, VERSION_NAMED, VERSION_RELAY};

/// Why a text is no invite, or an invite cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is something else altogether.
    #[error(
        "this is no invite: an invite starts with sr1, sr2, sr3 or sr4, as `stream-router invite` prints it"
    )]
    NoInvite,
    /// The invite is of another version.
    #[error(
        "the invite is of version {version}, and this program reads {VERSION}, {VERSION_NAMED}, {VERSION_DNS} and {VERSION_RELAY}; update the older of the two nodes"
    )]
    Version {
        /// Version of the invite.
        version: char,
    },
    /// The text is longer than any invite.
    #[error("the invite has {n_bytes} characters, and none has more than {MAX_CHARS}; copy it alone")]
    TooLong {
        /// Length of the text.
        n_bytes: usize,
    },
    /// The text has a character that no invite has.
    #[error("character {place} is none of an invite; copy the invite whole and on one line")]
    Character {
        /// Number of the character, from 1.
        place: usize,
    },
    /// The checksum of the invite does not fit.
    #[error("the invite is damaged or cut: its checksum does not fit; copy it again, the whole of it")]
    Damaged,
    /// The invite says what no peer can have.
    #[error("the invite cannot be used: {wrong}")]
    Content {
        /// What is wrong with the content.
        wrong: String,
    },
}
