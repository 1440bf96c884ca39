//! A peer that speaks TLS by rustls and agrees on streams in records, in which it sends whatever bytes a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libp2p::identity::Keypair;
use libp2p::tls::make_client_config;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::stock_peer::multistream_message;

const STREAMS_IN_RECORDS: &[u8] = b"/stream-router/lanes/1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a node.
pub(crate) struct RecordPeer(StreamOwned<ClientConnection, TcpStream>);

impl RecordPeer {
    /// Connects to a node with this identity, up to the end of the handshake.
    pub(crate) fn connect(identity: &Keypair, at: SocketAddr) -> Result<Self> {
        let mut socket = TcpStream::connect_timeout(&at, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let proposal = ["/multistream/1.0.0", "/tls/1.0.0"]
            .map(multistream_message)
            .concat();
        socket.write_all(&proposal)?;
        let mut answer = vec![0; proposal.len()];
        socket.read_exact(&mut answer)?;
        ensure!(answer == proposal, "the node answered {answer:?}");

        let mut config = make_client_config(identity, None)?;
        config.alpn_protocols.insert(0, STREAMS_IN_RECORDS.to_vec());
        let name = ServerName::IpAddress(at.ip().into());
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        let agreed = tls.conn.alpn_protocol();
        ensure!(agreed == Some(STREAMS_IN_RECORDS), "agreed on {agreed:?}");
        Ok(Self(tls))
    }

    /// Sends one record that holds these bytes.
    pub(crate) fn send(&mut self, record: &[u8]) -> Result<()> {
        self.0.write_all(record)?;
        Ok(self.0.flush()?)
    }

    /// Sends one record whose bytes nobody has sealed.
    pub(crate) fn send_unsealed(&mut self, len: u16) -> Result<()> {
        let header = [&[23, 3, 3], &len.to_be_bytes()[..]].concat();
        self.0.sock.write_all(&header)?;
        Ok(self.0.sock.write_all(&vec![0x5A; len.into()])?)
    }

    /// Waits until the node has ended the connection.
    pub(crate) fn wait_ended(mut self) -> Result<()> {
        let mut buffer = [0; 1024];
        loop {
            match self.0.read(&mut buffer) {
                Ok(1..) => {}
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(error).context("the node goes on with the connection");
                }
                // By an alert, or without a word.
                Err(_) => return Ok(()),
            }
        }
    }
}
