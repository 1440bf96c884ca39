//! The `stream-router` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    stream_router_node::cli::main()
}
