//! `flows` on a node that receives: what comes from its peer stands beside what it sends, in both protocols.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{text, until};
use xtask::lab::{Node, Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(30);

const TCP_PORT: u16 = 7000;
const TCP_BYTES: usize = 4 << 20;

const UDP_PORT: u16 = 7001;
const N_DATAGRAMS: u64 = 50;
const DATAGRAM_LEN: usize = 1000;
/// Carried in three fragments.
const LONG_DATAGRAM_LEN: usize = 4000;
const N_FRAGMENTS: u64 = 3;

/// Returns the one flow of these arguments.
fn flow(node: &Node, arguments: &[&str]) -> Result<Value> {
    let list: Value = node.ask(&[&["flows"], arguments].concat())?;
    match list["flows"].as_array().map(Vec::as_slice) {
        Some([flow]) => Ok(flow.clone()),
        _ => bail!("{arguments:?}: {list}"),
    }
}

fn number(flow: &Value, field: &str) -> u64 {
    flow[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} of {flow}"))
}

/// Returns whether two numbers differ by no more than a tenth.
fn is_about(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / 10
}

#[test]
fn a_receiver_shows_what_comes_of_each_flow() {
    let _machine = machine::shared();
    let plan = PairPlan::unique();
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("flows").unwrap()).unwrap();
    for side in [&mut pair.a, &mut pair.b] {
        // No flow is forgotten while it is looked at.
        side.config.sections = "\n[connections]\nttl = \"10m\"\n".to_owned();
        side.node.configure(&side.config).unwrap();
    }
    pair.start_nodes().unwrap();
    for (from, to) in [(pair.a.v4, pair.b.v4), (pair.a.v6, pair.b.v6)] {
        tcp(&pair, to).unwrap();
        udp(&pair, from, to).unwrap();
        pings(&pair, to).unwrap();
    }
    hook(&pair).unwrap();
    idle(&mut pair).unwrap();
}

/// Both directions of a connection are in one row, on both nodes.
fn tcp(pair: &Pair, to: IpAddr) -> Result<()> {
    let at = SocketAddr::new(to, TCP_PORT);
    let listener = pair
        .b
        .host
        .enter(|| TcpListener::bind(at).context("cannot listen"))?;
    let server = thread::spawn(move || -> Result<usize> {
        let mut received = Vec::new();
        listener
            .accept()?
            .0
            .read_to_end(&mut received)
            .context("cannot receive")
    });
    let mut client = pair
        .a
        .host
        .enter(|| TcpStream::connect_timeout(&at, LIMIT).context("cannot connect"))?;
    client.write_all(&vec![7; TCP_BYTES])?;
    drop(client);
    let n_received = server.join().expect("the server does not panic")?;
    ensure!(n_received == TCP_BYTES, "{n_received} bytes came");

    let (address, port) = (to.to_string(), TCP_PORT.to_string());
    let arguments = ["--address", &address, "--port", &port, "--protocol", "tcp"];
    until("both nodes have counted alike", LIMIT, || {
        let (sender, receiver) = (flow(&pair.a.node, &arguments)?, flow(&pair.b.node, &arguments)?);
        let counted = ["bytes", "rx_bytes"].map(|field| number(&sender, field));
        let other = ["rx_bytes", "bytes"].map(|field| number(&receiver, field));
        let alike = is_about(counted[0], other[0]) && is_about(counted[1], other[1]);
        Ok(alike.then_some(()))
    })?;
    let receiver = flow(&pair.b.node, &arguments)?;
    assert_eq!(
        (&receiver["source"], &receiver["source_port"]),
        (&address.as_str().into(), &TCP_PORT.into())
    );
    assert_eq!(receiver["peer"], pair.a.node.peer_id());
    assert!(receiver["worker"].is_u64(), "{receiver}");
    assert!(
        is_about(number(&receiver, "rx_bytes"), TCP_BYTES as u64),
        "{receiver}"
    );
    assert!(
        number(&receiver, "rx_packets") > 0 && number(&receiver, "packets") > 0,
        "{receiver}"
    );
    assert!(number(&receiver, "bytes") < TCP_BYTES as u64 / 4, "{receiver}");
    Ok(())
}

/// A flow that nothing goes back of has a row, in which its fragments are counted too.
fn udp(pair: &Pair, from: IpAddr, to: IpAddr) -> Result<()> {
    let at = SocketAddr::new(to, UDP_PORT);
    // Open, so that no ICMP error goes back.
    let _receiver = pair.b.host.enter(|| UdpSocket::bind(at).context("cannot bind"))?;
    let sender = pair
        .a
        .host
        .enter(|| UdpSocket::bind(SocketAddr::new(from, 0)).context("cannot bind"))?;
    for _ in 0..N_DATAGRAMS {
        sender.send_to(&[7; DATAGRAM_LEN], at)?;
    }
    sender.send_to(&[7; LONG_DATAGRAM_LEN], at)?;

    let (ip_len, fragment_len) = if to.is_ipv4() { (20, 20) } else { (40, 48) };
    let sent = N_DATAGRAMS * (ip_len + 8 + DATAGRAM_LEN as u64)
        + 8
        + LONG_DATAGRAM_LEN as u64
        + N_FRAGMENTS * fragment_len;
    let (address, port) = (to.to_string(), UDP_PORT.to_string());
    let arguments = ["--address", &address, "--port", &port];
    let (flow, _) = until("every datagram is counted", LIMIT, || {
        let list: Value = pair.b.node.ask(&[&["flows"], &arguments[..]].concat())?;
        let flow = list["flows"][0].clone();
        Ok((flow["rx_packets"] == N_DATAGRAMS + N_FRAGMENTS).then_some(flow))
    })?;
    assert_eq!(number(&flow, "rx_bytes"), sent);
    assert_eq!(
        (&flow["source"], &flow["source_port"]),
        (&address.as_str().into(), &UDP_PORT.into())
    );
    assert_eq!(flow["destination"], from.to_string());
    assert_eq!(flow["destination_port"], sender.local_addr()?.port());
    assert_eq!(flow["peer"], pair.a.node.peer_id());
    assert_eq!((&flow["packets"], &flow["bytes"]), (&0.into(), &0.into()));
    assert_eq!((&flow["worker"], &flow["stream"]), (&Value::Null, &Value::Null));
    let mut command = Command::new(NODE);
    command
        .arg("flows")
        .args(arguments)
        .arg("--socket")
        .arg(pair.b.node.socket());
    let shown = text(&mut command, LIMIT)?;
    let columns = ["0", "0 B", &format!("{}", N_DATAGRAMS + N_FRAGMENTS)].join("  ");
    let squeezed = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(squeezed.contains(&columns.replace("  ", " ")), "{shown}");
    Ok(())
}

/// A ping's requests and replies are in one row, though both have the identifier for their source port.
fn pings(pair: &Pair, to: IpAddr) -> Result<()> {
    let report = PingPlan::new(to).run(&pair.a.host)?;
    ensure!(report.n_lost() == 0, "pings were lost");
    let protocol = if to.is_ipv4() { "icmp" } else { "icmpv6" };
    let list: Value = pair.b.node.ask(&["flows", "--protocol", protocol])?;
    let n = u64::from(report.n_sent);
    let mut flows = list["flows"].as_array().into_iter().flatten();
    let both =
        flows.any(|flow| flow["packets"] == n && flow["rx_packets"] == n && flow["source"] == to.to_string());
    ensure!(both, "{list}");
    Ok(())
}

/// The kernel's own count of what was captured is the one at the hook, as the documents say.
fn hook(pair: &Pair) -> Result<()> {
    let mut command = pair.a.host.command("tc");
    let shown = text(
        command.args(["-s", "qdisc", "show", "dev", &pair.a.config.device]),
        LIMIT,
    )?;
    let counts = shown.split("qdisc clsact").nth(1).context("no clsact")?;
    let sent = counts
        .split_whitespace()
        .skip_while(|word| *word != "Sent")
        .nth(1);
    let n_bytes: u64 = sent.context("no count")?.parse()?;
    ensure!(n_bytes > 2 * TCP_BYTES as u64, "{shown}");
    Ok(())
}

/// What was idle for longer than the time to live is gone, also if a reload has shortened it.
fn idle(pair: &mut Pair) -> Result<()> {
    let count = |pair: &Pair| -> Result<u64> {
        let list: Value = pair.b.node.ask(&["flows", "--port", &UDP_PORT.to_string()])?;
        Ok(number(&list, "matched"))
    };
    ensure!(count(pair)? == 2, "a flow of each family");
    let side = &mut pair.b;
    side.config.sections = "\n[connections]\nttl = \"1s\"\n".to_owned();
    side.node.configure(&side.config)?;
    let mut reload = Command::new(NODE);
    text(
        reload.arg("reload").arg("--socket").arg(side.node.socket()),
        LIMIT,
    )?;
    until("the flows are gone", LIMIT, || {
        Ok((count(pair)? == 0).then_some(()))
    })?;
    Ok(())
}
