//! Several nodes on one host, each with a file of its own name in /etc/stream-router.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{NODE, machine};
use xtask::lab::process::output;
use xtask::lab::{Namespace, ScratchDir, mount_bpffs, unique_device, unique_name};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs two nodes with /etc, /run and /var/lib of their own, and asks them.
const SCRIPT: &str = r#"
set -eu
node=$1 first=$2 second=$3 out=$4
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
for at in etc var/lib; do
    mkdir -p /mnt/$at/upper /mnt/$at/work
    mount -t overlay overlay -o lowerdir=/$at,upperdir=/mnt/$at/upper,workdir=/mnt/$at/work /$at
done
mkdir -p /etc/stream-router /var/lib/stream-router /run/stream-router-$first /run/stream-router-$second
cp "$out/$first.toml" "$out/$second.toml" /etc/stream-router/
pids=
trap 'kill $pids; wait' EXIT
until_answer() {
    for _ in $(seq 200); do
        "$node" status --name "$1" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "$1 does not answer" >&2
    exit 9
}
"$node" run --make-key --name "$first" >"$out/first.log" 2>&1 &
one=$!
pids=$one
"$node" run --make-key --name "$second" >"$out/second.log" 2>&1 &
two=$!
pids="$one $two"
until_answer "$first"
until_answer "$second"
for _ in $(seq 200); do
    "$node" status --name "$first" --json >"$out/listening"
    grep -q /ip6/.*quic "$out/listening" && break
    sleep 0.1
done
"$node" status >"$out/both"
"$node" status --name "$second" --json >"$out/second"
# Two are meant, and the file of a node without a name is not there.
for unsaid in peers "status --json" "flows --json" check; do
    "$node" $unsaid >>"$out/unsaid" 2>&1 && exit 8
done
"$node" id --name "$second" >"$out/id"
"$node" check --name "$first" >"$out/check"
"$node" complete -- status --name "" >"$out/names"
pids=$two
kill $one
wait $one
"$node" status >"$out/rest"
test ! -e /run/stream-router-$first/control.sock
"#;

#[test]
fn two_nodes_have_names_and_one_that_stops_leaves_the_other_alone() {
    let _machine = machine::shared();
    mount_bpffs().unwrap();
    let scratch = ScratchDir::unique("instances").unwrap();
    let host = Namespace::create(&unique_name("i")).unwrap();
    let names = [unique_device(), unique_device()];
    for (n, name) in (1..).zip(&names) {
        // The first listens where a node does that is told nothing.
        let listen = match n {
            1 => "",
            _ => "[node]\nlisten = [\"/ip4/127.0.0.1/tcp/4002\"]\n",
        };
        let text = format!("{listen}[device]\naddresses = [\"10.42.{n}.1/24\"]\n");
        fs::write(scratch.path().join(format!("{name}.toml")), text).unwrap();
    }
    let mut command: Command = host.command("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", SCRIPT, "sh", NODE]);
    command.args(&names).arg(scratch.path());
    command.env_remove("RUST_LOG");

    let ended = output(&mut command, LIMIT).unwrap();

    let read = |file: &str| fs::read_to_string(scratch.path().join(file)).unwrap_or_default();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        ended.status.success(),
        "{said}\n{}\n{}",
        read("first.log"),
        read("second.log")
    );
    let listening = read("listening");
    assert!(
        [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip6/::1/tcp/4001",
            "/ip6/::1/udp/4001/quic-v1"
        ]
        .iter()
        .all(|address| listening.contains(address)),
        "{listening}"
    );
    let both = read("both");
    assert!(names.iter().all(|name| both.contains(&**name)), "{both}");
    let unsaid = read("unsaid");
    let mut in_order = names.each_ref().map(|name| &**name);
    in_order.sort_unstable();
    let refusal = format!("of which --name takes one: {}\n", in_order.join(", "));
    assert_eq!(unsaid.matches(&refusal).count(), 4, "{unsaid}");
    let second: serde_json::Value = serde_json::from_str(&read("second")).unwrap();
    assert_eq!(second["device"]["name"], *names[1]);
    assert_eq!(second["peer_id"], read("id").trim());
    assert!(read("check").contains(&format!("/etc/stream-router/{}.toml: valid", names[0])));
    let shown = read("names");
    assert!(
        names.iter().all(|name| shown.contains(&format!("{name}\t"))),
        "{shown}"
    );
    let rest = read("rest");
    assert!(rest.contains(&names[1]) && !rest.contains(&names[0]), "{rest}");
    assert!(
        !Path::new("/etc/stream-router")
            .join(format!("{}.toml", names[0]))
            .exists()
    );
}
