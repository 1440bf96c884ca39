//! The outcome of a command, and its standard output.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

/// The outcome of a command; `main` prints the error and chooses the exit code.
pub(super) type Outcome = Result<(), Box<dyn Error>>;

/// Prints to standard output; an error, such as a closed pipe, is the command's.
pub(super) fn print(text: impl Display) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
