//! `stream-router generate`: writes what a package holds beside the program.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use clap::{Command, ValueEnum};

use super::complete::write_scripts;
use super::outcome::Outcome;

/// Sections of stream-router(1) that cannot be made from the command line.
const MANUAL: &str = r#".SH "EXIT STATUS"
0: done. 1: failed. 2: wrong usage or configuration.
.SH ENVIRONMENT
.TP
\fBRUST_LOG\fR
Level of the log, such as \fIinfo\fR, which is the default, or \fIstream_router=debug\fR.
.TP
\fBSTREAM_ROUTER_CONFIG\fR
Configuration file of commands that are given none.
.TP
\fBSTREAM_ROUTER_SOCKET\fR
Control socket of commands that are given none.
.SH FILES
.TP
\fI/etc/stream\-router.toml\fR
Configuration of the service, see \fBstream\-router.toml\fR(5).
.TP
\fI/etc/stream\-router/NAME.toml\fR
That of one of several nodes, which \fIstream\-router@NAME.service\fR runs.
.TP
\fI/var/lib/stream\-router/identity.key\fR
Identity of the node.
.TP
\fI/run/stream\-router/control.sock\fR
Control socket of a running node.
.TP
\fI/sys/fs/bpf/stream\-router/\fR
Pinned programs and maps of running nodes.
.SH "SEE ALSO"
\fBstream\-router.toml\fR(5), \fBbpftool\fR(8), \fBsystemctl\fR(1)
"#;

/// What is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PackageFiles {
    /// A manual page for each command.
    Man,
    /// Completions for bash, fish and zsh.
    Completions,
}

/// Writes files that describe `command_line` into the directory `out`.
pub(super) fn generate(what: PackageFiles, out: &Path, command_line: &Command) -> Outcome {
    let failed = |error| format!("cannot write into {}: {error}", out.display());
    match what {
        PackageFiles::Man => manual(out, command_line).map_err(failed)?,
        PackageFiles::Completions => write_scripts(out).map_err(failed)?,
    }
    Ok(())
}

fn manual(out: &Path, command_line: &Command) -> std::io::Result<()> {
    clap_mangen::generate_to(command_line.clone(), out)?;
    let mut page = OpenOptions::new()
        .append(true)
        .open(out.join("stream-router.1"))?;
    page.write_all(MANUAL.as_bytes())
}
