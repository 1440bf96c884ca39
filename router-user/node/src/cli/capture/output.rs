//! Where captured packets go: lines or pcapng, to standard output or a file.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::line;
use crate::control::{CaptureBlock, CaptureRecord};

/// How long what was begun may take to be written once the user wants to end.
const GRACE: Duration = Duration::from_secs(1);

/// Where to, and as what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A line for each packet, without names if it is to be numeric.
    Lines { is_numeric: bool },
    /// A JSON object on a line for each packet.
    Json,
    /// Pcapng to standard output.
    PcapngStdout,
    /// Pcapng to a file.
    PcapngFile(&'a Path),
}

/// Collects what blocks become, and writes it.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    name: String,
    add: fn(&mut Vec<u8>, &CaptureBlock<'_>),
    pending: Vec<u8>,
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {name}")]
pub(super) struct WriteError {
    name: String,
    source: io::Error,
}

impl Output {
    /// Opens the target; a file is private, and what was in it is gone.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) async fn open(target: Target<'_>) -> Result<Self, Box<dyn std::error::Error>> {
        let (file, name) = match target {
            Target::PcapngFile(path) => {
                let name = path.display().to_string();
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                match options.open(path).await {
                    Ok(file) => (file, name),
                    Err(source) => return Err(Box::new(WriteError { name, source })),
                }
            }
            _ => {
                let stdout = io::stdout().as_fd().try_clone_to_owned()?;
                (File::from_std(stdout.into()), "to standard output".to_owned())
            }
        };
        let add: fn(&mut Vec<u8>, &CaptureBlock<'_>) = match target {
            Target::Lines { is_numeric: false } => |into, block| {
                if let CaptureRecord::Packet(packet) = &block.record {
                    line::put_line(into, packet, false);
                }
            },
            Target::Lines { is_numeric: true } => |into, block| {
                if let CaptureRecord::Packet(packet) = &block.record {
                    line::put_line(into, packet, true);
                }
            },
            Target::Json => |into, block| {
                if let CaptureRecord::Packet(packet) = &block.record {
                    line::put_json(into, packet);
                }
            },
            Target::PcapngStdout | Target::PcapngFile(_) => |into, block| into.extend_from_slice(block.bytes),
        };
        Ok(Self {
            file,
            name,
            add,
            pending: Vec::new(),
        })
    }

    /// Takes a block.
    pub(super) fn add(&mut self, block: &CaptureBlock<'_>) {
        (self.add)(&mut self.pending, block);
    }

    /// Writes what was taken, and returns false when `stopped` came before it was done, or nobody reads any more.
    ///
    /// # Errors
    /// The system refuses to write.
    pub(super) async fn write(
        &mut self,
        stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<bool, WriteError> {
        let pending = std::mem::take(&mut self.pending);
        let file = &mut self.file;
        let mut writing = std::pin::pin!(async move {
            file.write_all(&pending).await?;
            file.flush().await
        });
        let written = tokio::select! {
            biased;
            written = &mut writing => written.map(|()| true),
            () = stopped => timeout(GRACE, writing).await.unwrap_or(Ok(())).map(|()| false),
        };
        match written {
            // As when the reader of a pipe has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map_err(|source| WriteError {
                name: self.name.clone(),
                source,
            }),
        }
    }
}
