//! The command line: one file per command.

mod check;
mod id;
mod keygen;
mod run;
mod status;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;

/// Wrong usage or configuration; also clap's own code.
const EXIT_USAGE: u8 = 2;

/// Carries IP packets between VPN nodes over libp2p streams, steered by eBPF.
#[derive(Debug, Parser)]
#[command(name = "stream-router", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new Ed25519 identity and print its peer id
    Keygen {
        /// File to write, mode 0600; never overwritten
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_KEY_FILE)]
        out: PathBuf,
    },
    /// Print the peer id of an identity
    Id {
        /// Identity file
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_KEY_FILE)]
        key: PathBuf,
    },
    /// Validate a configuration: exit 0, or 2 with every problem
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the node in the foreground until SIGINT or SIGTERM
    Run {
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what a running node is doing
    Status {
        /// Control socket of the node
        #[arg(long, value_name = "PATH", default_value = crate::config::DEFAULT_CONTROL_SOCKET)]
        socket: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command that the process was called with; its exit code is 0, 1 for a failure, 2 for wrong usage or
/// configuration.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Keygen { out } => keygen::keygen(&out),
        Command::Id { key } => id::id(&key),
        Command::Check { config } => check::check(&config),
        Command::Run { config } => run::run(&config),
        Command::Status { socket, json } => status::status(&socket, json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            if error.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

type Outcome = Result<(), Box<dyn Error>>;

fn report(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
}

/// Prints to standard output; an error, such as a closed pipe, is the command's.
fn print(text: impl std::fmt::Display) -> Outcome {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
