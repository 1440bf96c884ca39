//! Encryption to a collector, which shows a certificate of an authority of the system or of a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::TlsConnector;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::config::{OtlpEndpoint, OtlpSection};
use stream_router::p2p::regular_file;

/// Where Debian, Fedora, openSUSE and Alpine have the certificates of the authorities that the system trusts.
const OF_SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a collector cannot be spoken to in secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "the system has no certificates of authorities; install ca-certificates, or name a file in otlp.ca_file"
    )]
    NoAuthorities,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no certificates in PEM, or one that is none", path.display())]
    Malformed { path: PathBuf },
    #[error("{host:?} is no name that a certificate could have")]
    Name { host: String },
    #[error("TLS cannot be set up")]
    Protocol(#[from] rustls::Error),
}

/// What a connection is encrypted with.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Makes ready to connect, if the collector is to be spoken to in secret.
    ///
    /// # Errors
    /// There is no authority that could be trusted.
    pub(super) fn of(section: &OtlpSection) -> Result<Option<Self>, TlsError> {
        let Some(endpoint) = section.endpoint().filter(|endpoint| endpoint.is_encrypted()) else {
            return Ok(None);
        };
        let authorities = match section.ca_file() {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        // The provider of the connections between nodes.
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Ok(Some(Self {
            connector: Arc::new(config).into(),
            name: name(endpoint)?,
        }))
    }

    /// Encrypts a connection.
    ///
    /// # Errors
    /// The collector does not show that it is the one that is meant.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
        let stream = self.connector.connect(self.name.clone(), stream.compat());
        Ok(stream.await?.compat())
    }
}

fn name(endpoint: &OtlpEndpoint) -> Result<ServerName<'static>, TlsError> {
    let host = endpoint.host().to_owned();
    ServerName::try_from(host.clone()).map_err(|_no_name| TlsError::Name { host })
}

fn of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let malformed = || TlsError::Malformed {
        path: path.to_owned(),
    };
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = certificate.map(|certificate| authorities.add(certificate));
        added
            .map_err(|_no_pem| malformed())?
            .map_err(|_no_certificate| malformed())?;
    }
    match authorities.is_empty() {
        true => Err(malformed()),
        false => Ok(authorities),
    }
}

fn of_system() -> Result<RootCertStore, TlsError> {
    let there = OF_SYSTEM.map(Path::new).into_iter().find(|path| path.exists());
    let path = there.ok_or(TlsError::NoAuthorities)?;
    let mut authorities = RootCertStore::empty();
    // A system has some that nobody understands.
    let (n_added, _) = authorities.add_parsable_certificates(certificates(path)?.into_iter().flatten());
    match n_added {
        0 => Err(TlsError::NoAuthorities),
        _ => Ok(authorities),
    }
}

fn certificates(
    path: &Path,
) -> Result<Vec<Result<CertificateDer<'static>, rustls::pki_types::pem::Error>>, TlsError> {
    let text = regular_file::read_to_string(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(CertificateDer::pem_slice_iter(text.as_bytes()).collect())
}
