//! Where captured packets go: lines or pcap, to standard output or a file.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{line, pcap};
use crate::control::CapturedPacket;

/// How long what was begun may take to be written once the user wants to end.
const GRACE: Duration = Duration::from_secs(1);

/// Where to, and as what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A line for each packet.
    Lines,
    /// A JSON object on a line for each packet.
    Json,
    /// Pcap to standard output.
    PcapStdout,
    /// Pcap to a file.
    PcapFile(&'a Path),
}

/// Collects what packets become, and writes it.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    name: String,
    add: fn(&mut Vec<u8>, &CapturedPacket<'_>),
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
    pub(super) async fn open(target: Target<'_>, snaplen: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let (file, name) = match target {
            Target::PcapFile(path) => {
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
        let (add, pending): (fn(&mut Vec<u8>, &CapturedPacket<'_>), _) = match target {
            Target::Lines => (line::put_line, Vec::new()),
            Target::Json => (line::put_json, Vec::new()),
            Target::PcapStdout | Target::PcapFile(_) => (pcap::put_packet, pcap::header(snaplen)),
        };
        Ok(Self {
            file,
            name,
            add,
            pending,
        })
    }

    /// Takes a packet.
    pub(super) fn add(&mut self, packet: &CapturedPacket<'_>) {
        (self.add)(&mut self.pending, packet);
    }

    /// Writes what was taken; false when `stopped` came before it was done, or nobody reads any more.
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

    /// Writes what there is.
    ///
    /// # Errors
    /// The system refuses to write.
    pub(super) async fn flush(&mut self) -> Result<(), WriteError> {
        self.write(std::pin::pin!(std::future::pending())).await.map(drop)
    }
}
