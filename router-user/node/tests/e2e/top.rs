//! `top` in a terminal, against live nodes: what it shows, what its keys do, and how it leaves the terminal.

use std::fs;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{NODE, machine};
use xtask::lab::process::until;
use xtask::lab::{Pair, PairPlan, ScratchDir, Side, Terminal};

const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 20_001;
/// Where only the other node sends to.
const ONE_WAY_PORT: u16 = 20_002;

struct Scene {
    terminal: Terminal,
    pair: Pair,
    directory: ScratchDir,
    // Open, so that no ICMP error goes back.
    _receiver: UdpSocket,
}

impl Scene {
    /// Two nodes, a flow from each to the other, and a shell.
    fn new() -> Result<Self> {
        let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), ScratchDir::unique("nodes")?)?;
        pair.a.config.sections = "\n[connections]\nttl = \"10m\"\n".to_owned();
        pair.a.node.configure(&pair.a.config)?;
        pair.start_nodes()?;
        let directory = ScratchDir::unique("top")?;
        let terminal = Terminal::start(directory.path(), 80, 24)?;
        let at = SocketAddr::new(pair.a.v4, ONE_WAY_PORT);
        let receiver = pair.a.host.enter(|| UdpSocket::bind(at).context("cannot bind"))?;
        let scene = Self {
            terminal,
            pair,
            directory,
            _receiver: receiver,
        };
        let (a, b) = (&scene.pair.a, &scene.pair.b);
        send(a, SocketAddr::new(b.v4, PORT))?;
        send(b, at)?;
        scene.shell(&format!("stty -g > {}", scene.file("before")))?;
        Ok(scene)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn shell(&self, line: &str) -> Result<()> {
        self.terminal.type_text(line)?;
        self.terminal.press("Enter")
    }

    /// Starts `top`, which writes its process id to a file, and says how it ended.
    fn start_top(&self, arguments: &str) -> Result<()> {
        let socket = self.pair.a.node.socket();
        self.shell("clear; echo in-front")?;
        self.shell(&format!(
            "sh -c 'echo $$ > {}; exec {NODE} top --socket {} {arguments}'; echo ended with $?; stty -g > {}",
            self.file("pid"),
            socket.display(),
            self.file("after"),
        ))?;
        self.shows(&["peers 1/1", "connected", "sent"])
    }

    /// Waits until all of this is on the screen.
    fn shows(&self, parts: &[&str]) -> Result<()> {
        let what = format!("{parts:?} on the screen");
        let all = |screen: &str| parts.iter().all(|part| screen.contains(part));
        self.terminal.wait_for(&what, all).map(drop)
    }

    /// Waits until `top` has ended so, and the terminal is as it was before.
    fn ended_with(&self, code: i32) -> Result<()> {
        let ended = format!("ended with {code}");
        self.shows(&["in-front", &ended])?;
        let before = fs::read_to_string(self.file("before"))?;
        until("the terminal's settings are back", LIMIT, || {
            let after = fs::read_to_string(self.file("after")).unwrap_or_default();
            Ok((after == before).then_some(()))
        })?;
        fs::remove_file(self.file("after"))?;
        Ok(())
    }
}

/// Sends a few datagrams to the other node.
fn send(from: &Side, to: SocketAddr) -> Result<()> {
    let at = SocketAddr::new(from.v4, 0);
    let sender = from.host.enter(|| UdpSocket::bind(at).context("cannot bind"))?;
    for _ in 0..10 {
        sender.send_to(b"datagram", to)?;
    }
    Ok(())
}

#[test]
fn top_shows_a_live_node_and_leaves_the_terminal_as_it_was() {
    let _machine = machine::shared();
    let mut scene = Scene::new().unwrap();

    scene.start_top("").unwrap();
    panes(&scene).unwrap();
    sizes(&scene).unwrap();
    a_node_that_is_gone_for_a_while(&mut scene).unwrap();
    scene.terminal.press("q").unwrap();
    scene.ended_with(0).unwrap();

    scene.start_top("--interval 0.5").unwrap();
    scene.terminal.press("C-c").unwrap();
    scene.ended_with(0).unwrap();

    scene.start_top("").unwrap();
    let pid = fs::read_to_string(scene.file("pid")).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    scene.ended_with(0).unwrap();
}

fn panes(scene: &Scene) -> Result<()> {
    let terminal = &scene.terminal;
    let destination = format!("{}:{PORT}", scene.pair.b.v4);
    terminal.press("2")?;
    scene.shows(&["WORKER", "active", "░░░░░░░░░░", "sr-data-0"])?;
    terminal.press("Tab")?;
    scene.shows(&["STREAM", "QUEUED", "free"])?;
    terminal.press("4")?;
    let one_way = format!("{}:{ONE_WAY_PORT}", scene.pair.a.v4);
    scene.shows(&["DESTINATION", "TX", "RX", &destination, &one_way, "live"])?;
    terminal.press("5")?;
    scene.shows(&["5 Drops"])?;
    terminal.press("4")?;
    terminal.type_text("/2001:db8::/32")?;
    scene.shows(&["show only: 2001:db8::/32"])?;
    terminal.press("Enter")?;
    scene.shows(&["only 2001:db8::/32", "nothing here fits the filter"])?;
    terminal.press("/")?;
    terminal.press("C-u")?;
    terminal.type_text("10.42.0.0/24")?;
    terminal.press("Enter")?;
    scene.shows(&["only 10.42.0.0/24", &destination])?;
    terminal.press("Enter")?;
    let peer = scene.pair.b.node.peer_id();
    scene.shows(&[peer, "handshake", "round trip", "drops", &one_way, "Esc back"])?;
    terminal.press("Escape")?;
    // An Escape with a key right behind it is that key with Alt.
    let is_left = |screen: &str| !screen.contains("Esc back");
    terminal.wait_for("the page is left", is_left)?;
    scene.shows(&["only 10.42.0.0/24"])?;
    terminal.press("p")?;
    scene.shows(&["PAUSED"])?;
    terminal.press("p")?;
    terminal.press("+")?;
    scene.shows(&["every 2 s"])?;
    terminal.press("-")?;
    terminal.press("?")?;
    scene.shows(&["sort by the next column"])?;
    terminal.press("Escape")?;
    // An Escape with a key right behind it is that key with Alt.
    let is_gone = |screen: &str| !screen.contains("sort by the next column");
    terminal.wait_for("the help is gone", is_gone)?;
    terminal.press("1")?;
    terminal.press("s")?;
    terminal.press("r")?;
    scene.shows(&["RX▲"])
}

fn sizes(scene: &Scene) -> Result<()> {
    scene.terminal.resize(120, 40)?;
    scene.shows(&["┌ Workers ", "┌ Drops ", "10.42.0.2/32"])?;
    scene.terminal.resize(20, 5)?;
    scene.terminal.wait_for("a small screen", |screen| {
        screen.contains("connected") && !screen.contains("sent")
    })?;
    scene.terminal.resize(80, 24)?;
    scene.shows(&["sent", "received"])
}

fn a_node_that_is_gone_for_a_while(scene: &mut Scene) -> Result<()> {
    scene.pair.a.node.stop(Signal::SIGTERM)?;
    scene.shows(&["no answer for", "no node answers at"])?;
    scene.pair.a.node.start()?;
    scene.terminal.wait_for("the node is back", |screen| {
        screen.contains("peers 1/1") && !screen.contains("no answer")
    })?;
    Ok(())
}
