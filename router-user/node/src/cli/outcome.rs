//! What a command comes to, and the standard output.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

/// What a command comes to; `main` prints the error and chooses the exit code.
pub(super) type Outcome = Result<(), Box<dyn Error>>;

/// Prints to standard output; an error, such as a closed pipe, is the command's.
pub(super) fn print(text: impl Display) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
