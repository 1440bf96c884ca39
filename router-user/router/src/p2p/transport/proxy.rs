//! Dialling through a proxy: HTTP CONNECT or SOCKS5.
//!
//! The proxy sees where the node wants to go, and then carries what the security protocol has sealed.

use std::{fmt, io, net::SocketAddr, pin::pin};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{HOST, PROXY_AUTHORIZATION},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use crate::p2p::{
    names::{HostLookup, NameError},
    tcp_config::{Credentials, ProxyConfig, ProxyHost, ProxyProtocol},
};

/// Most bytes and fields of the head of a proxy's answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
const MAX_ANSWER_FIELDS: usize = 64;

/// The proxy of a node.
pub(super) struct Proxy {
    config: ProxyConfig,
    hosts: HostLookup,
}

/// Where a peer is: at an address, or at a name that the proxy is to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Ip(SocketAddr),
    Name(String, u16),
}

/// Why a proxy did not bring a connection up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the proxy answers {0}")]
    Refused(StatusCode),
    #[error(
        "the proxy answers {0}: it wants a user name and a password, or others than those in transport.proxy"
    )]
    Unauthorized(StatusCode),
    #[error("the proxy does not speak HTTP CONNECT")]
    Http(#[source] hyper::Error),
    #[error("the proxy sends {0} bytes before the peer was asked for any")]
    Excess(usize),
    #[error("the proxy does not take a connection over SOCKS5")]
    Socks(#[source] tokio_socks::Error),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(at) => at.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}", self.config)
    }
}

impl Proxy {
    pub(super) fn new(config: ProxyConfig, hosts: HostLookup) -> Self {
        Self { config, hosts }
    }

    /// Says whether a peer is dialled through the proxy.
    pub(super) fn takes(&self, to: &Destination) -> bool {
        match to {
            Destination::Ip(at) => self.config.takes_ip(at.ip()),
            Destination::Name(name, _) => self.config.takes_name(name),
        }
    }

    /// Returns where the proxy is reached.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, ProxyError> {
        let port = self.config.port;
        match &self.config.host {
            ProxyHost::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
            ProxyHost::Name(name) => Ok(self.hosts.look_up(name, port).await?),
        }
    }

    /// Asks the proxy at the other end of `stream` to connect it to `to`.
    pub(super) async fn tunnel(&self, stream: TcpStream, to: &Destination) -> Result<TcpStream, ProxyError> {
        let credentials = self.config.credentials.as_ref();
        match self.config.protocol {
            ProxyProtocol::Http => connect(stream, credentials, to).await,
            ProxyProtocol::Socks5 => socks5(stream, credentials, to).await.map_err(ProxyError::Socks),
        }
    }
}

async fn socks5(
    stream: TcpStream,
    credentials: Option<&Credentials>,
    to: &Destination,
) -> Result<TcpStream, tokio_socks::Error> {
    let opened = match (to, credentials) {
        (Destination::Ip(at), None) => Socks5Stream::connect_with_socket(stream, *at).await,
        (Destination::Name(name, port), None) => {
            Socks5Stream::connect_with_socket(stream, (name.as_str(), *port)).await
        }
        (Destination::Ip(at), Some(Credentials { user, password })) => {
            Socks5Stream::connect_with_password_and_socket(stream, *at, user, password).await
        }
        (Destination::Name(name, port), Some(Credentials { user, password })) => {
            Socks5Stream::connect_with_password_and_socket(stream, (name.as_str(), *port), user, password)
                .await
        }
    };
    Ok(opened?.into_inner())
}

async fn connect(
    stream: TcpStream,
    credentials: Option<&Credentials>,
    to: &Destination,
) -> Result<TcpStream, ProxyError> {
    let request = request(credentials, to)?;
    let mut client = http1::Builder::new();
    client
        .max_buf_size(MAX_ANSWER_BYTES)
        .max_headers(MAX_ANSWER_FIELDS);
    let (mut sender, connection) = client
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ProxyError::Http)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(ProxyError::Http)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(ProxyError::Http),
            // Some give the answer of a server to credentials that are wrong.
            status @ (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED) => {
                Err(ProxyError::Unauthorized(status))
            }
            status => Err(ProxyError::Refused(status)),
        }
    };
    let mut exchange = pin!(exchange);
    let upgraded = tokio::select! {
        upgraded = &mut exchange => upgraded,
        // It ends when it has been handed over; an error of it comes out of the exchange too.
        _ = connection.with_upgrades() => exchange.await,
    };
    let parts = match upgraded?.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => parts,
        Err(_other) => return Err(io::Error::other("the connection to the proxy is of another type").into()),
    };
    match parts.read_buf.len() {
        0 => Ok(parts.io.into_inner()),
        excess => Err(ProxyError::Excess(excess)),
    }
}

fn request(credentials: Option<&Credentials>, to: &Destination) -> Result<Request<String>, io::Error> {
    let authority = to.to_string();
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&authority)
        .header(HOST, &authority);
    if let Some(Credentials { user, password }) = credentials {
        let token = STANDARD.encode(format!("{user}:{password}"));
        request = request.header(PROXY_AUTHORIZATION, format!("Basic {token}"));
    }
    request.body(String::new()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::p2p::transport::test_network::in_own_network;

    /// Returns what the node says of a proxy that gives this answer to its request.
    fn outcome_of(answer: &[u8]) -> String {
        let answer = answer.to_vec();
        in_own_network(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listens");
                let at = listener.local_addr().expect("it is bound");
                let stream = TcpStream::connect(at).await.expect("connects");
                let (mut proxy, _) = listener.accept().await.expect("accepts");
                let answering = async move {
                    let (mut request, mut piece) = (Vec::new(), [0; 512]);
                    while !request.ends_with(b"\r\n\r\n") {
                        let n = proxy.read(&mut piece).await.expect("the request");
                        request.extend_from_slice(&piece[..n]);
                    }
                    // The node may have enough before all is written.
                    let _ = proxy.write_all(&answer).await;
                    proxy
                };
                let to = Destination::Ip(([192, 0, 2, 2], 4001).into());
                let (outcome, _proxy) = tokio::join!(connect(stream, None, &to), answering);
                match outcome {
                    Ok(_) => "connected".to_owned(),
                    Err(error) => error.to_string(),
                }
            })
        })
    }

    #[test]
    fn what_a_proxy_answers_is_bounded_and_named() {
        let fields = |n: usize| "X-Field: a\r\n".repeat(n);
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), "connected"),
            (
                "HTTP/1.0 200 Connection established\r\n\r\n".to_owned(),
                "connected",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!".to_owned(),
                "the proxy answers 502 Bad Gateway",
            ),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_owned(),
                "the proxy answers 407 Proxy Authentication Required: it wants a user name and a password, or others \
                 than those in transport.proxy",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nhello".to_owned(),
                "the proxy sends 5 bytes before the peer was asked for any",
            ),
            (
                "\0\u{1}garbage\r\n\r\n".to_owned(),
                "the proxy does not speak HTTP CONNECT",
            ),
            (
                format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(MAX_ANSWER_FIELDS + 1)),
                "the proxy does not speak HTTP CONNECT",
            ),
            (
                format!("HTTP/1.1 200 OK\r\n{}", fields(MAX_ANSWER_BYTES)),
                "the proxy does not speak HTTP CONNECT",
            ),
        ] {
            assert_eq!(outcome_of(answer.as_bytes()), expected);
        }
    }
}
