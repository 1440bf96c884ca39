//! What a service manager sees of a start: a key that is made, what no restart mends, and a reload that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::process::{output, signal, until, wait};
use xtask::lab::{Node, Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(30);
/// Of whatever stays so until a person mends it.
const FOR_GOOD: Option<i32> = Some(2);

fn prepared(sections: &str) -> Pair {
    let scratch = ScratchDir::unique("starts").expect("a directory");
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), scratch).expect("a pair");
    pair.a.config.sections = sections.to_owned();
    pair.a.node.configure(&pair.a.config).expect("the file");
    pair
}

/// Runs a command that ends by itself; returns its exit code, and what it prints.
fn ended(mut command: Command) -> (Option<i32>, String) {
    let ended = output(&mut command, LIMIT).expect("it ends");
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.code(), String::from_utf8(said).expect("text"))
}

fn run(pair: &Pair, arguments: &[&str]) -> Command {
    let mut command = pair.a.host.command(NODE);
    command.args(arguments).arg("--config").arg(pair.a.node.config());
    command.env_remove("RUST_LOG");
    command
}

fn edit(node: &Node, from: &str, to: &str) {
    let text = fs::read_to_string(node.config()).expect("the file");
    assert!(text.contains(from), "{text}");
    fs::write(node.config(), text.replace(from, to)).expect("the file");
}

#[test]
fn a_node_without_a_key_makes_it_and_goes_on_with_it() {
    let _machine = machine::shared();
    // The number of workers comes down to the least at once.
    let pair = prepared("\n[workers]\nmin = 2\ninitial = 6\nscale_interval = \"100ms\"\n");
    let node = &pair.a.node;
    fs::remove_file(node.key()).unwrap();
    let (code, said) = ended(run(&pair, &["run"]));
    assert_eq!(code, FOR_GOOD, "{said}");
    assert!(said.contains("keygen"), "{said}");
    assert!(!node.key().exists());

    let log = pair.directory().join("log");
    let mut command = run(&pair, &["run", "--make-key"]);
    command.stderr(fs::File::create(&log).unwrap());
    let mut process = command.spawn().unwrap();
    let (status, _) = until("the node has settled", LIMIT, || {
        Ok(node.status().ok().filter(|status| status.workers == 2))
    })
    .unwrap();
    let mode = fs::metadata(node.key()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut id = Command::new(NODE);
    id.arg("keygen").arg("--if-missing").arg("--out").arg(node.key());
    let (_, id) = ended(id);
    assert_eq!(id.trim(), status.peer_id);
    let said = fs::read_to_string(&log).unwrap();
    assert!(
        said.contains("made a key") && said.contains(&status.peer_id),
        "{said}"
    );
    assert!(!said.contains("workers scaled"), "{said}");

    // What the unit does to reload it.
    edit(node, "mtu = 1420", "mtu = 5");
    let (code, said) = ended(run(&pair, &["reload"]));
    assert_eq!(code, FOR_GOOD, "{said}");
    assert!(said.contains("device.mtu: 5 is out of range"), "{said}");
    edit(node, "mtu = 5", "mtu = 1400");
    let (code, said) = ended(run(&pair, &["reload"]));
    assert_eq!((code, said.trim()), (Some(0), "needs a restart: device.mtu"));
    signal(&process, Signal::SIGTERM).unwrap();
    assert!(wait(&mut process, LIMIT).unwrap().success());
}

#[test]
fn what_no_restart_mends_has_an_exit_code_of_its_own_and_a_check_finds_it() {
    let _machine = machine::shared();
    let pair = prepared("");
    let node = &pair.a.node;
    let told = |what: &str| {
        for arguments in [&["run"][..], &["check", "--live"]] {
            let (code, said) = ended(run(&pair, arguments));
            assert_eq!(code, FOR_GOOD, "{arguments:?}: {said}");
            assert!(said.contains(what), "{arguments:?}: {said}");
        }
    };
    let (code, said) = ended(run(&pair, &["check", "--live"]));
    assert_eq!(code, Some(0), "{said}");

    edit(node, pair.b.node.peer_id(), node.peer_id());
    told("is this node itself");
    edit(
        node,
        &format!("id = \"{}\"", node.peer_id()),
        &format!("id = {:?}", pair.b.node.peer_id()),
    );
    edit(
        node,
        "\n[[peer]]\n",
        "\n[[gateway]]\ninterface = \"lan7\"\n[[peer]]\n",
    );
    told("lan7");
    edit(node, "\n[[gateway]]\ninterface = \"lan7\"", "");
    fs::set_permissions(node.key(), fs::Permissions::from_mode(0o644)).unwrap();
    told("so others than its owner can use it");
}
