//! Captures at a live pair of nodes: what they hold is what was sent, and nothing waits for a capture.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{NODE, machine, runtime};
use stream_router_node::control::{
    CAPTURE_PATH, CaptureBlocks, CaptureDirections, CaptureQuery, CaptureReader, CaptureRecord,
};
use xtask::lab::Pair;
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{self, output, text, until};

const LIMIT: Duration = Duration::from_secs(30);
/// More than a capture, the sockets below it and the kernel's buffers hold.
const STREAM_BYTES: usize = 32 * 1024 * 1024;
const PORT: u16 = 20_001;
const OTHER_PORT: u16 = 20_002;

/// A running `capture`.
struct Capture {
    child: Child,
    errors: Receiver<String>,
}

impl Capture {
    /// Starts it, and returns once it captures.
    fn start(pair: &Pair, arguments: &[&str], stdout: impl Into<Stdio>) -> Result<Self> {
        let mut child = command(pair, arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (lines, errors) = sync_channel(100);
        thread::spawn(move || {
            let mut read = BufReader::new(stderr).lines().map_while(Result::ok);
            read.try_for_each(|line| lines.send(line))
        });
        let capture = Self { child, errors };
        let first = capture.errors.recv_timeout(LIMIT).context("it says nothing")?;
        anyhow::ensure!(first.starts_with("capturing "), "{first}");
        Ok(capture)
    }

    /// Waits for its end; it has to be a good one. What it said since it began.
    fn ended(mut self) -> Result<String> {
        let status = process::wait(&mut self.child, LIMIT)?;
        let said: Vec<_> = self.errors.iter().collect();
        let said = said.join("\n");
        anyhow::ensure!(status.success(), "{status}: {said}");
        Ok(said)
    }

    /// Ctrl-C.
    fn interrupted(self) -> Result<String> {
        process::signal(&self.child, Signal::SIGINT)?;
        self.ended()
    }
}

fn command(pair: &Pair, arguments: &[&str]) -> Command {
    let mut command = Command::new(NODE);
    command.arg("capture").args(arguments);
    command.arg("--socket").arg(pair.a.node.socket());
    command
}

/// A packet of a pcapng file.
struct Captured {
    bytes: Vec<u8>,
    len: usize,
    /// The lowest bits of its flags: 1 inbound, 2 outbound.
    direction: u32,
    comments: Vec<String>,
}

/// Reads a file as its format is specified, not as we write it.
fn packets_of(file: &Path, device: &str) -> Result<Vec<Captured>> {
    let bytes = fs::read(file)?;
    let mut packets = Vec::new();
    let mut devices = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = (word(&bytes, at)?, word(&bytes, at + 4)? as usize);
        let body = bytes.get(at + 8..at + len - 4).context("a block is cut short")?;
        anyhow::ensure!(
            word(&bytes, at + len - 4)? as usize == len,
            "a block ends otherwise than it begins"
        );
        match kind {
            0x0a0d_0d0a => anyhow::ensure!(at == 0 && word(body, 0)? == 0x1a2b_3c4d, "not the magic"),
            1 => {
                anyhow::ensure!(word(body, 0)? == 101, "not raw IP");
                let options = options_of(body.get(8..).context("no options")?)?;
                let resolution = options.iter().find(|(code, _)| *code == 9);
                anyhow::ensure!(resolution == Some(&(9, vec![9])), "not nanoseconds");
                devices.extend(options.into_iter().find(|(code, _)| *code == 2));
            }
            6 => packets.push(packet_of(body)?),
            5 => {}
            other => anyhow::bail!("a block of kind {other}"),
        }
        at += len;
    }
    anyhow::ensure!(
        devices == [(2, device.as_bytes().to_vec())],
        "not the device: {devices:?}"
    );
    Ok(packets)
}

fn packet_of(body: &[u8]) -> Result<Captured> {
    let (captured, len) = (word(body, 12)? as usize, word(body, 16)? as usize);
    let packet = body.get(20..20 + captured).context("a packet is cut short")?;
    let options = options_of(&body[20 + captured.next_multiple_of(4)..])?;
    let flags = options.iter().find(|(code, _)| *code == 2).context("no flags")?;
    let comments = options.iter().filter(|(code, _)| *code == 1);
    Ok(Captured {
        bytes: packet.to_vec(),
        len,
        direction: word(&flags.1, 0)? & 3,
        comments: comments
            .map(|(_, text)| Ok(String::from_utf8(text.clone())?))
            .collect::<Result<_>>()?,
    })
}

fn options_of(mut rest: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut options = Vec::new();
    loop {
        let head = word(rest, 0)?;
        let (code, len) = (head as u16, (head >> 16) as usize);
        if code == 0 {
            return Ok(options);
        }
        let value = rest.get(4..4 + len).context("an option is cut short")?;
        options.push((code, value.to_vec()));
        rest = &rest[4 + len.next_multiple_of(4)..];
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).context("the file is cut short")?;
    Ok(u32::from_le_bytes(word.try_into()?))
}

/// Payload of a datagram whose checksums are right.
fn datagram(packet: &[u8]) -> Vec<u8> {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        panic!("no datagram");
    };
    let header = udp.to_header();
    let expected = header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload());
    assert_eq!(header.checksum, expected.expect("a length that fits"));
    udp.payload().to_vec()
}

struct Scene {
    pair: Pair,
    sender: UdpSocket,
    // Open ports, so that no ICMP error comes back.
    _receivers: Vec<UdpSocket>,
}

impl Scene {
    fn new() -> Result<Self> {
        let pair = Pair::unique(Path::new(NODE))?;
        let bind = |at: SocketAddr| UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"));
        let at = |port| SocketAddr::new(pair.b.v4, port);
        let receivers = pair.b.host.enter(|| {
            let ports = [PORT, OTHER_PORT].into_iter();
            ports.map(|port| bind(at(port))).collect()
        })?;
        let sender = pair.a.host.enter(|| bind(SocketAddr::new(pair.a.v4, 0)))?;
        Ok(Self {
            pair,
            sender,
            _receivers: receivers,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.pair.directory().join(name)
    }

    /// Name of the first node's device.
    fn device(&self) -> Result<String> {
        let mut command = Command::new(NODE);
        command
            .args(["status", "--json", "--socket"])
            .arg(self.pair.a.node.socket());
        let status: Value = serde_json::from_str(&text(&mut command, LIMIT)?)?;
        Ok(status["device"]["name"].as_str().context("no device")?.to_owned())
    }

    fn send(&self, port: u16, payload: &[u8]) -> Result<()> {
        self.sender
            .send_to(payload, SocketAddr::new(self.pair.b.v4, port))?;
        Ok(())
    }

    fn ping(&self) -> Result<()> {
        let report = PingPlan::new(self.pair.b.v4).run(&self.pair.a.host)?;
        assert_eq!(report.n_received, 3);
        Ok(())
    }

    /// Sends a stream from the first node's host to the second's.
    fn stream(&self, n_bytes: usize) -> Result<()> {
        let at = SocketAddr::new(self.pair.b.v4, 0);
        let listener = self.pair.b.host.enter(|| Ok(TcpListener::bind(at)?))?;
        let to = listener.local_addr()?;
        let receiving = thread::spawn(move || -> Result<usize> {
            let (mut stream, _) = listener.accept()?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            Ok(received.len())
        });
        let mut stream = self.pair.a.host.enter(|| Ok(TcpStream::connect(to)?))?;
        stream.write_all(&vec![7; n_bytes])?;
        drop(stream);
        let received = receiving.join().expect("the receiver ends")?;
        assert_eq!(received, n_bytes);
        Ok(())
    }
}

#[test]
fn captures_hold_what_was_sent_and_hold_nothing_up() {
    let _machine = machine::shared();
    let mut scene = Scene::new().unwrap();

    a_file_holds_the_datagrams_of_its_filter_with_finished_checksums(&scene).unwrap();
    lines_show_both_directions_until_ctrl_c(&scene).unwrap();
    super_packets_are_whole(&scene).unwrap();
    tcpdump_reads_what_is_piped_to_it(&scene).unwrap();
    what_the_socket_answers_is_pcapng(&scene).unwrap();
    wrong_input_is_refused(&scene).unwrap();
    a_client_that_does_not_read_loses_packets_and_nobody_else_does(&scene).unwrap();
    a_killed_client_gives_its_place_back(&scene).unwrap();
    a_capture_ends_with_its_node(&mut scene).unwrap();
}

fn a_file_holds_the_datagrams_of_its_filter_with_finished_checksums(scene: &Scene) -> Result<()> {
    let device = scene.device()?;
    let file = scene.file("datagrams.pcapng");
    let name = file.to_str().context("a path of ASCII")?;
    let payloads: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; usize::from(n) * 20]).collect();
    let (port, peer) = (PORT.to_string(), scene.pair.b.node.peer_id());
    let filter = [
        "udp",
        "dst",
        "port",
        &port,
        "and",
        "peer",
        &peer[peer.len() - 8..],
    ];
    let capture = Capture::start(
        &scene.pair,
        &[&["-w", name, "--count", "50"][..], &filter].concat(),
        Stdio::null(),
    )?;

    for payload in &payloads {
        scene.send(OTHER_PORT, b"not this")?;
        scene.send(PORT, payload)?;
    }

    assert_eq!(
        capture.ended()?,
        "50 packets captured, 0 dropped by the node for lack of room"
    );
    let packets = packets_of(&file, &device)?;
    let captured: Vec<_> = packets.iter().map(|packet| datagram(&packet.bytes)).collect();
    assert_eq!(captured, payloads);
    assert!(packets.iter().all(|packet| packet.len == packet.bytes.len()));
    assert!(packets.iter().all(|packet| packet.direction == 2));
    let of_peer = format!("peer={peer}");
    assert!(packets.iter().all(|packet| packet.comments[0] == of_peer));
    let dumped = text(Command::new("tcpdump").args(["-n", "-r", name]), LIMIT)?;
    let expected = format!(" > {}.{PORT}: UDP, length ", scene.pair.b.v4);
    assert_eq!(dumped.matches(&expected).count(), 50, "{dumped}");
    Ok(())
}

fn lines_show_both_directions_until_ctrl_c(scene: &Scene) -> Result<()> {
    let shown = scene.file("lines.json");
    let out_only = scene.file("out.txt");
    let both = Capture::start(&scene.pair, &["--json", "icmp"], fs::File::create(&shown)?)?;
    let out = Capture::start(
        &scene.pair,
        &[
            "-n",
            "-i",
            &scene.pair.a.config.device,
            "--direction",
            "out",
            "icmp or icmpv6",
        ],
        fs::File::create(&out_only)?,
    )?;

    scene.ping()?;
    until("both have every packet", LIMIT, || {
        let n = |file: &Path| Ok::<_, anyhow::Error>(fs::read_to_string(file)?.lines().count());
        Ok((n(&shown)? >= 6 && n(&out_only)? >= 3).then_some(()))
    })?;

    assert!(both.interrupted()?.starts_with("6 packets captured, 0 dropped"));
    assert!(out.interrupted()?.starts_with("3 packets captured, 0 dropped"));
    let json = fs::read_to_string(&shown)?;
    let lines: Vec<Value> = json.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (a, b) = (scene.pair.a.v4.to_string(), scene.pair.b.v4.to_string());
    for (direction, source, destination) in [("out", &a, &b), ("in", &b, &a)] {
        let of_it: Vec<_> = lines
            .iter()
            .filter(|line| line["direction"] == direction)
            .collect();
        assert_eq!(of_it.len(), 3, "{json}");
        for (line, sequence) in of_it.into_iter().zip(1..) {
            assert_eq!(
                (&line["source"], &line["destination"]),
                (&source[..].into(), &destination[..].into())
            );
            assert_eq!(line["protocol"], "icmp");
            assert_eq!(line["peer"], scene.pair.b.node.peer_id());
            assert_eq!(line["length"], 84);
            assert_eq!(line["segments"], 1);
            assert_eq!(line["source_port"], Value::Null);
            let kind = if direction == "out" { 8 } else { 0 };
            assert_eq!(line["icmp_type"], kind);
            assert_eq!(line["icmp_sequence"], sequence);
        }
    }
    let text = fs::read_to_string(&out_only)?;
    for (line, sequence) in text.lines().zip(1..) {
        assert!(
            line.contains(&format!("{a} > {b}: icmp echo request id ")),
            "{line}"
        );
        assert!(line.ends_with(&format!(" seq {sequence} length 84")), "{line}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
    Ok(())
}

fn super_packets_are_whole(scene: &Scene) -> Result<()> {
    let device = scene.device()?;
    let file = scene.file("super.pcapng");
    let name = file.to_str().context("a path of ASCII")?;
    let capture = Capture::start(
        &scene.pair,
        &[
            "-w",
            name,
            "--count",
            "5",
            "--direction",
            "out",
            "tcp and greater 3000",
        ],
        Stdio::null(),
    )?;

    scene.stream(4 * 1024 * 1024)?;

    capture.ended()?;
    let packets = packets_of(&file, &device)?;
    assert_eq!(packets.len(), 5);
    for packet in packets {
        assert!(packet.len >= 3000 && packet.bytes.len() == packet.len);
        let offload = packet
            .comments
            .get(1)
            .context("nothing says that it is a super-packet")?;
        assert!(
            offload.starts_with("offload: ") && !offload.contains("gso_size=0 "),
            "{offload}"
        );
        let sliced = SlicedPacket::from_ip(&packet.bytes).expect("a packet");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport)
        else {
            panic!("no TCP");
        };
        assert!(tcp.payload().iter().all(|byte| *byte == 7));
        let header = tcp.to_header();
        let expected = header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload());
        assert_eq!(header.checksum, expected.expect("a length that fits"));
    }
    Ok(())
}

fn tcpdump_reads_what_is_piped_to_it(scene: &Scene) -> Result<()> {
    let mut tcpdump = Command::new("tcpdump")
        .args(["-n", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdin = tcpdump.stdin.take().context("no standard input")?;
    let capture = Capture::start(&scene.pair, &["-w", "-", "--count", "6", "icmp"], stdin)?;

    scene.ping()?;

    capture.ended()?;
    let dumped = tcpdump.wait_with_output()?;
    let dumped = String::from_utf8(dumped.stdout)?;
    assert_eq!(dumped.matches("ICMP echo request").count(), 3, "{dumped}");
    assert_eq!(dumped.matches("ICMP echo reply").count(), 3, "{dumped}");
    Ok(())
}

/// Without the program's own client: an HTTP request, whose answer tcpdump reads.
fn what_the_socket_answers_is_pcapng(scene: &Scene) -> Result<()> {
    let mut socket = UnixStream::connect(scene.pair.a.node.socket())?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(
        socket,
        "GET {CAPTURE_PATH}?filter=icmp&direction=out HTTP/1.0\r\n\r\n"
    )?;
    let mut answer = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        anyhow::ensure!(answer.read_line(&mut head)? > 0, "{head}");
    }
    assert!(head.contains("content-type: application/x-pcapng\r\n"), "{head}");

    scene.ping()?;

    let mut pcapng = Vec::new();
    let error = answer.read_to_end(&mut pcapng).expect_err("the capture goes on");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    let file = scene.file("answer.pcapng");
    fs::write(&file, pcapng)?;
    let dumped = text(Command::new("tcpdump").args(["-n", "-r"]).arg(&file), LIMIT)?;
    assert_eq!(dumped.matches("ICMP echo request").count(), 3, "{dumped}");
    assert_eq!(dumped.lines().count(), 3, "{dumped}");
    Ok(())
}

fn wrong_input_is_refused(scene: &Scene) -> Result<()> {
    for (arguments, code, said) in [
        (
            &["tcp", "and"][..],
            2,
            "the filter is wrong at character 8: the filter ends",
        ),
        (&["port", "http"], 2, "a port, 0 to 65535"),
        (&["--snaplen", "0"], 2, "from 1 to 65535"),
        (&["--count", "0"], 2, "0 is not in 1.."),
        (&["--direction", "up"], 2, "[possible values: in, out, both]"),
        (
            &["--json", "-w", "x.pcapng"],
            2,
            "--json is for lines; -w writes pcapng",
        ),
        (
            &["-i", "nobody0"],
            1,
            "no node has the device nobody0; the nodes that run have",
        ),
        (&["peer", "nobody"], 1, "no peer's id ends with nobody"),
        (&["-w", "/nowhere/x.pcapng"], 1, "cannot write /nowhere/x.pcapng"),
    ] {
        let output = output(&mut command(&scene.pair, arguments), LIMIT)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
    Ok(())
}

/// Records that the workers have drained.
fn n_drained(pair: &Pair) -> Result<u64> {
    let json: Value = pair.a.node.ask(&["workers"])?;
    let workers = json["workers"].as_array().context("no workers")?;
    Ok(workers
        .iter()
        .filter_map(|worker| worker["packets"].as_u64())
        .sum())
}

fn a_client_that_does_not_read_loses_packets_and_nobody_else_does(scene: &Scene) -> Result<()> {
    let runtime = runtime();
    let query = CaptureQuery {
        directions: CaptureDirections::Out,
        ..CaptureQuery::default()
    };
    let before = n_drained(&scene.pair)?;
    let mut reader = runtime.block_on(CaptureReader::open(&scene.pair.a.node.socket(), &query))?;

    // Nobody polls the runtime meanwhile.
    scene.stream(STREAM_BYTES)?;

    let (mut blocks, mut n_captured, mut n_dropped) = (CaptureBlocks::default(), 0, 0);
    until("every packet is captured or counted", LIMIT, || {
        let next = runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(100), reader.next_bytes()).await });
        let Ok(bytes) = next else {
            let n_passed = n_drained(&scene.pair)? - before;
            return Ok((n_dropped > 0 && n_captured + n_dropped == n_passed).then_some(()));
        };
        blocks.handle_bytes(&bytes?.context("the capture has ended")?);
        while let Some(block) = blocks.next_block().map_err(anyhow::Error::msg)? {
            match block.record {
                CaptureRecord::Packet(packet) => {
                    assert_eq!(packet.bytes.len(), packet.len as usize);
                    n_captured += 1;
                }
                CaptureRecord::Dropped(n) => n_dropped = n,
                CaptureRecord::End { reason, .. } => anyhow::bail!("{reason}"),
                CaptureRecord::Other => {}
            }
        }
        Ok(None)
    })?;
    assert!(n_captured > 0);
    Ok(())
}

fn a_killed_client_gives_its_place_back(scene: &Scene) -> Result<()> {
    let captures: Vec<_> = (0..4)
        .map(|_| Capture::start(&scene.pair, &[], Stdio::null()))
        .collect::<Result<_>>()?;
    let refused = output(&mut command(&scene.pair, &[]), LIMIT)?;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("as many captures run as may"), "{said}");

    for mut capture in captures {
        process::signal(&capture.child, Signal::SIGKILL)?;
        process::wait(&mut capture.child, LIMIT)?;
    }

    until("a place is free", LIMIT, || {
        Ok(Capture::start(&scene.pair, &[], Stdio::null()).ok())
    })?
    .0
    .interrupted()?;
    Ok(())
}

fn a_capture_ends_with_its_node(scene: &mut Scene) -> Result<()> {
    let device = scene.device()?;
    let file = scene.file("last.pcapng");
    let name = file.to_str().context("a path of ASCII")?;
    let capture = Capture::start(&scene.pair, &["-w", name, "host", "10.42.0.2"], Stdio::null())?;
    scene.ping()?;

    let status = scene.pair.a.node.stop(Signal::SIGTERM)?;

    assert!(status.success());
    let said = capture.ended()?;
    assert!(
        said.starts_with("the node is stopping\n6 packets captured, 0 dropped"),
        "{said}"
    );
    let packets = packets_of(&file, &device)?;
    assert_eq!(packets.len(), 6);
    assert_eq!(packets.iter().filter(|packet| packet.direction == 1).count(), 3);
    let no_node = output(&mut command(&scene.pair, &[]), LIMIT)?;
    assert_eq!(no_node.status.code(), Some(1));
    Ok(())
}
