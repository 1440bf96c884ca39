//! A stock libp2p node that speaks our protocol: nothing of our transports in it.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    identity::Keypair,
    noise, ping,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
    tcp, tls, yamux,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::support::LIMIT;
use stream_router::p2p::IP_PROTOCOL;

/// Which security protocol the node has.
#[derive(Clone, Copy)]
pub(crate) enum Security {
    TlsAndNoise,
    NoiseOnly,
}

/// A running stock node. Each of its connections opens `n_open` streams at once.
pub(crate) struct StockNode {
    pub(crate) id: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) streams: mpsc::Receiver<Stream>,
    pub(crate) ended: mpsc::Receiver<String>,
    task: JoinHandle<()>,
}

impl Drop for StockNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StockNode {
    pub(crate) async fn start(
        keypair: &Keypair,
        security: Security,
        listen: &str,
        dial: Option<Multiaddr>,
        n_open: usize,
    ) -> Self {
        let mut swarm = build(keypair, security, n_open);
        let id = *swarm.local_peer_id();
        swarm
            .listen_on(listen.parse().expect("an address"))
            .expect("listen");
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        if let Some(address) = dial {
            swarm.dial(address).expect("dial");
        }
        let (sender, streams) = mpsc::channel(1024);
        let (failure_sender, ended) = mpsc::channel(16);
        swarm.behaviour_mut().streams.sender = Some(sender);
        let task = tokio::spawn(async move {
            loop {
                let ended = match swarm.select_next_some().await {
                    SwarmEvent::OutgoingConnectionError { error, .. } => format!("{error:?}"),
                    SwarmEvent::ConnectionClosed { cause, .. } => format!("{cause:?}"),
                    _ => continue,
                };
                if failure_sender.send(ended).await.is_err() {
                    return;
                }
            }
        });
        Self {
            id,
            address,
            streams,
            ended,
            task,
        }
    }

    pub(crate) async fn stream(&mut self) -> Stream {
        timeout(LIMIT, self.streams.recv())
            .await
            .expect("a stream comes in time")
            .expect("the node runs")
    }

    /// Waits until a connection has closed or could not be made.
    pub(crate) async fn ended(&mut self) -> String {
        timeout(LIMIT, self.ended.recv())
            .await
            .expect("a connection ends in time")
            .expect("the node runs")
    }
}

fn build(keypair: &Keypair, security: Security, n_open: usize) -> Swarm<Behaviour> {
    let behaviour = Behaviour {
        ping: ping::Behaviour::default(),
        streams: StockStreams { n_open, sender: None },
    };
    let builder = SwarmBuilder::with_existing_identity(keypair.clone()).with_tokio();
    let keep = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(Duration::from_secs(60));
    match security {
        Security::TlsAndNoise => builder
            .with_tcp(
                tcp::Config::default(),
                (tls::Config::new, noise::Config::new),
                yamux::Config::default,
            )
            .expect("transport")
            .with_quic()
            .with_behaviour(|_| behaviour)
            .expect("behaviour")
            .with_swarm_config(keep)
            .build(),
        Security::NoiseOnly => builder
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("transport")
            .with_behaviour(|_| behaviour)
            .expect("behaviour")
            .with_swarm_config(keep)
            .build(),
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    streams: StockStreams,
}

struct StockStreams {
    n_open: usize,
    sender: Option<mpsc::Sender<Stream>>,
}

impl NetworkBehaviour for StockStreams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler {
            n_open: self.n_open,
            sender: self.sender.clone(),
        })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler {
            n_open: self.n_open,
            sender: self.sender.clone(),
        })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

struct Handler {
    n_open: usize,
    sender: Option<mpsc::Sender<Stream>>,
}

type Upgrade = ReadyUpgrade<StreamProtocol>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(ReadyUpgrade::new(IP_PROTOCOL), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, (), Infallible>> {
        if self.n_open == 0 {
            return Poll::Pending;
        }
        self.n_open -= 1;
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: self.listen_protocol(),
        })
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade>) {
        let stream = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => protocol,
            _ => return,
        };
        let sender = self.sender.as_ref().expect("set before the swarm runs");
        // A test that has ended takes no more streams.
        let _ended = sender.try_send(stream);
    }
}
