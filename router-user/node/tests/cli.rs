//! The command line as scripts see it: output, messages, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use xtask::lab::ScratchDir;

const NODE: &str = env!("CARGO_BIN_EXE_stream-router");

struct Scratch(ScratchDir);

impl Scratch {
    fn new() -> Self {
        Self(ScratchDir::unique("cli").expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// An identity; returns its file and its peer id.
    fn identity(&self) -> (PathBuf, String) {
        let key = self.path("identity.key");
        let output = stream_router(&["keygen", "--out", text(&key)]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        (key, stdout(&output).trim_end().to_owned())
    }
}

fn stream_router(arguments: &[&str]) -> Output {
    Command::new(NODE)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn keygen_prints_the_id_alone_and_keeps_the_key_private() {
    let scratch = Scratch::new();

    let (key, id) = scratch.identity();

    assert!(id.starts_with("12D3KooW") && id.lines().count() == 1, "{id}");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let again = stream_router(&["id", "--key", text(&key)]);
    assert_eq!((code(&again), stdout(&again)), (0, format!("{id}\n")));
}

#[test]
fn keygen_overwrites_nothing() {
    let scratch = Scratch::new();
    let (key, _) = scratch.identity();
    let before = fs::read(&key).unwrap();

    let output = stream_router(&["keygen", "--out", text(&key)]);

    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(stderr(&output).contains(text(&key)), "{}", stderr(&output));
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn keygen_names_a_directory_that_is_not_there() {
    let scratch = Scratch::new();
    let out = scratch.path("missing/identity.key");

    let output = stream_router(&["keygen", "--out", text(&out)]);

    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
}

#[test]
fn id_names_a_key_that_cannot_be_used() {
    let scratch = Scratch::new();
    let garbage = scratch.file("garbage.key", "not a key\n");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o600)).unwrap();
    let (open, _) = scratch.identity();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();

    for key in [scratch.path("none.key"), garbage, open] {
        let output = stream_router(&["id", "--key", text(&key)]);

        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (1, ""),
            "{}",
            key.display()
        );
        assert!(stderr(&output).contains(text(&key)), "{}", stderr(&output));
    }
}

#[test]
fn check_accepts_what_is_right() {
    let scratch = Scratch::new();
    let file = scratch.file("sr.toml", "[device]\naddresses = [\"10.42.0.1/24\"]\n");

    let output = stream_router(&["check", "--config", text(&file)]);

    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(stdout(&output), format!("{}: valid, 0 peers\n", file.display()));
}

#[test]
fn check_and_run_report_every_problem_with_its_line() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "sr.toml",
        "[node]\nkey = 7\nspeed = \"fast\"\n[device]\naddresses = [\"10.42.0.1/24\"]\nmtu = 5\n[workers]\nmin = 9\nmax = 3\n",
    );
    let name = file.display();
    let problems = [
        format!("{name}:2: node.key: expected a string, found an integer (allowed: an absolute path)"),
        format!("{name}:3: node.speed: unknown field (allowed: key, control, listen, name)"),
        format!("{name}:6: device.mtu: 5 is out of range (allowed: an integer from 576 to 32000)"),
        format!("{name}:8: workers.min: 9 is more than workers.max, 3 (allowed: at most workers.max)"),
    ];

    for command in ["check", "run"] {
        let output = stream_router(&[command, "--config", text(&file)]);

        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{command}");
        let said = stderr(&output);
        let said: Vec<_> = said.trim_end().trim_start_matches("error: ").lines().collect();
        assert_eq!(said, problems, "{command}");
    }
}

#[test]
fn log_directives_that_are_none_are_reported_with_their_line() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "sr.toml",
        "[device]\naddresses = [\"10.42.0.1/24\"]\n[log]\nlevel = \"info,stream_router=loud\"\nformat = \"xml\"\n",
    );

    let output = stream_router(&["check", "--config", text(&file)]);

    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{said}");
    for (line, field, wrong) in [
        (4, "log.level", "is no log filter"),
        (5, "log.format", "\"xml\" is no format"),
    ] {
        let place = format!("{}:{line}: {field}: ", file.display());
        assert!(said.contains(&place) && said.contains(wrong), "{said}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path("none.toml");

    for command in ["check", "run"] {
        let output = stream_router(&[command, "--config", text(&file)]);

        assert_eq!(code(&output), 2, "{command}");
        let said = stderr(&output);
        assert!(
            said.contains(text(&file)) && said.contains("No such file"),
            "{said}"
        );
    }
}

#[test]
fn run_says_where_it_looked_for_the_identity() {
    let scratch = Scratch::new();
    let key = scratch.path("none.key");
    let file = scratch.file(
        "sr.toml",
        &format!("[node]\nkey = {key:?}\n[device]\naddresses = [\"10.42.0.1/24\"]\n"),
    );

    let output = stream_router(&["run", "--config", text(&file)]);

    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(said.contains(text(&key)) && said.contains("keygen"), "{said}");
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.file("sr.toml", "[device]\naddresses = [\"10.42.0.1/24\"]\n");

    let output = Command::new(NODE)
        .args(["run", "--config", text(&file)])
        .env("RUST_LOG", "stream_router=loud")
        .output()
        .unwrap();

    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("RUST_LOG=stream_router=loud"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn status_without_a_node_says_what_to_look_at() {
    let scratch = Scratch::new();
    let socket = scratch.path("control.sock");

    for arguments in [
        &["status", "--socket", text(&socket)][..],
        &["status", "--json", "--socket", text(&socket)],
        &["reload", "--socket", text(&socket)],
    ] {
        let output = stream_router(arguments);

        assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
        let said = stderr(&output);
        assert!(
            said.contains(text(&socket)) && said.contains("is it running"),
            "{said}"
        );
    }
}

/// A node that does not run: a configuration beside its identity.
fn node(scratch: &Scratch, number: u8, rest: &str) -> (PathBuf, String) {
    let key = scratch.path(&format!("{number}.key"));
    let made = stream_router(&["keygen", "--out", text(&key)]);
    let socket = scratch.path(&format!("{number}.sock"));
    let config = format!(
        "[node]\nkey = {key:?}\ncontrol = {socket:?}\nlisten = [\"/ip4/192.0.2.{number}/tcp/4001\"]\n\
         [device] # mine\naddresses = [\"10.42.0.{number}/24\", \"fd42::{number}/64\"]\n{rest}"
    );
    let file = scratch.file(&format!("{number}.toml"), &config);
    (file, stdout(&made).trim().to_owned())
}

fn invite(file: &Path, more: &[&str]) -> String {
    let output = stream_router(&[&["invite", "--config", text(file)], more].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let invite = stdout(&output).trim_end().to_owned();
    assert_eq!(invite.lines().count(), 1, "{invite}");
    invite
}

fn join(file: &Path, invite: &str, more: &[&str]) -> Output {
    stream_router(&[&["join", "--config", text(file), invite], more].concat())
}

#[test]
fn an_invite_becomes_a_peer_of_the_other_configuration() {
    let scratch = Scratch::new();
    let (a, _) = node(&scratch, 1, "");
    let (b, id_b) = node(&scratch, 2, "");
    let before = fs::read_to_string(&a).unwrap();
    fs::set_permissions(&a, fs::Permissions::from_mode(0o640)).unwrap();
    let section = format!(
        "[[peer]]\nid = \"{id_b}\"\naddresses = [\"/ip4/192.0.2.2/tcp/4001\"]\n\
         allowed_ips = [\"10.42.0.2/32\", \"fd42::2/128\"]\n"
    );
    let invite = invite(&b, &[]);

    let dry = join(&a, &invite, &["--dry-run"]);
    assert_eq!(
        (code(&dry), stdout(&dry)),
        (0, section.clone()),
        "{}",
        stderr(&dry)
    );
    assert_eq!(fs::read_to_string(&a).unwrap(), before);

    let output = join(&a, &format!(" {invite}\n"), &[]);

    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(fs::read_to_string(&a).unwrap(), format!("{before}\n{section}"));
    assert_eq!(fs::metadata(&a).unwrap().permissions().mode() & 0o7777, 0o640);
    let said = stdout(&output);
    for part in [
        &section,
        "stream-router invite --config",
        "no node runs with it now: it takes effect with the next start",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let check = stream_router(&["check", "--config", text(&a)]);
    assert_eq!(stdout(&check), format!("{}: valid, 1 peers\n", a.display()));
}

#[test]
fn who_joins_a_node_that_relays_is_reached_through_it_unless_told_otherwise() {
    let scratch = Scratch::new();
    let (relay, id) = node(&scratch, 9, "[relay]\nserve = true\n");
    let invite = invite(&relay, &["--as", "oslo"]);
    for (number, more, named) in [
        (1, &[][..], Some("oslo".to_owned())),
        (2, &["--as", "meeting-point"], Some("meeting-point".to_owned())),
        (3, &["--no-relay"], None),
        (4, &["--dry-run"], Some("oslo".to_owned())),
    ] {
        let (file, _) = node(&scratch, number, "# the rest\n");
        let before = fs::read_to_string(&file).unwrap();

        let output = join(&file, &invite, more);

        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let section = named.map(|name| format!("\n[relay]\nvia = [\"{name}\"]\n"));
        let said = stdout(&output);
        assert_eq!(said.contains("[relay]"), section.is_some(), "{said}");
        let after = fs::read_to_string(&file).unwrap();
        match (&section, more) {
            (_, ["--dry-run"]) => assert_eq!(after, before),
            (Some(section), _) => assert!(after.contains(section), "{after}"),
            (None, _) => assert!(!after.contains("[relay]"), "{after}"),
        }
        assert!(after.starts_with(&before), "{after}");
        let shown = section.filter(|_| more == ["--dry-run"]);
        assert!(shown.is_none_or(|section| said.ends_with(&section)), "{said}");
        assert!(said.contains(&id), "{said}");
        let check = stream_router(&["check", "--config", text(&file)]);
        assert_eq!(code(&check), 0, "{}", stderr(&check));
    }
}

#[test]
fn an_invite_says_what_it_is_told_to_say() {
    let scratch = Scratch::new();
    let (a, _) = node(&scratch, 1, "");
    let (b, _) = node(&scratch, 2, "");
    let nets = ["--allowed-ips", "10.42.0.2/32,192.168.7.0/24"];
    let address = "/ip4/198.51.100.7/udp/4001/quic-v1";

    let named = invite(&b, &[&nets[..], &["--addresses", address]].concat());
    let silent = invite(&b, &["--no-addresses"]);

    let section = stdout(&join(&a, &named, &["--dry-run"]));
    assert!(
        section.contains(&format!("addresses = [\"{address}\"]")),
        "{section}"
    );
    assert!(
        section.contains("[\"10.42.0.2/32\", \"192.168.7.0/24\"]"),
        "{section}"
    );
    let section = stdout(&join(
        &a,
        &silent,
        &["--dry-run", "--allowed-ips", "10.42.0.2/32"],
    ));
    assert!(
        section.contains("addresses = []\nallowed_ips = [\"10.42.0.2/32\"]"),
        "{section}"
    );
}

#[test]
fn an_invite_needs_to_know_where_the_node_is_dialled() {
    let scratch = Scratch::new();
    let (open, _) = node(&scratch, 1, "");
    let config = fs::read_to_string(&open).unwrap();
    fs::write(&open, config.replace("192.0.2.1", "0.0.0.0")).unwrap();
    let (closed, _) = node(&scratch, 2, "");
    let config = fs::read_to_string(&closed).unwrap();
    fs::write(&closed, config.replace("192.0.2.2", "127.0.0.1")).unwrap();
    let (mute, _) = node(&scratch, 3, "");
    let config = fs::read_to_string(&mute).unwrap();
    fs::write(&mute, config.replace("\"/ip4/192.0.2.3/tcp/4001\"", "")).unwrap();

    for (file, said) in [
        (
            &open,
            "so the addresses at which it listens are not known; start it, or name",
        ),
        (&closed, "listens at no address that others can dial"),
    ] {
        let output = stream_router(&["invite", "--config", text(file)]);
        assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let silent = stream_router(&["invite", "--config", text(&mute)]);
    assert_eq!(code(&silent), 0);
    assert!(
        stderr(&silent).contains("nowhere, so it has to dial"),
        "{}",
        stderr(&silent)
    );
}

#[test]
fn a_wrong_word_of_an_invite_is_named() {
    let scratch = Scratch::new();
    let (a, _) = node(&scratch, 1, "");
    for (more, said) in [
        (&["--allowed-ips", "10.42.0.1/24"][..], "host bits set"),
        (&["--allowed-ips", "10.42.0.1"], "has no prefix length"),
        (&["--addresses", "192.0.2.1:4001"], "invalid value"),
        (
            &["--addresses", "/dns4/example..org/tcp/1"],
            "not a name that DNS can have",
        ),
        (
            &["--addresses", "/ip4/192.0.2.1/tcp/1", "--no-addresses"],
            "cannot be used with",
        ),
        (
            &["--allowed-ips", "10.42.0.1/32,10.42.0.1/32"],
            "10.42.0.1/32 is there twice",
        ),
    ] {
        let output = stream_router(&[&["invite", "--config", text(&a)], more].concat());

        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{more:?}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_joined_changes_nothing() {
    let scratch = Scratch::new();
    let (b, id_b) = node(&scratch, 2, "");
    let (c, _) = node(&scratch, 3, "");
    let taken = format!("[[peer]]\nid = \"{id_b}\"\nallowed_ips = [\"10.42.0.0/24\"]\n");
    let (a, _) = node(&scratch, 1, &taken);
    let before = fs::read_to_string(&a).unwrap();
    let name = a.display();
    let of_c = invite(&c, &[]);
    let own = invite(&a, &[]);
    let of_b = invite(&b, &[]);
    for (invite, more, said) in [
        (
            of_b.as_str(),
            &[][..],
            format!("{id_b} is a peer in {name} already"),
        ),
        (&own, &[], "an invite to this node itself".to_owned()),
        (
            &of_c,
            &["--allowed-ips", "10.42.0.0/24"],
            format!(
                "{name}:14: peer[1].allowed_ips[0]: overlapping allowed_ips: 10.42.0.0/24 is also peer[0]"
            ),
        ),
        (
            &of_c,
            &["--allowed-ips", "10.42.0.1/32"],
            "is this node's own device.addresses[0]".to_owned(),
        ),
        (
            &of_c[..of_c.len() - 1],
            &[],
            "the invite is damaged or cut".to_owned(),
        ),
        ("12D3KooW", &[], "this is no invite".to_owned()),
        ("sr5AAAA", &[], "of version 5".to_owned()),
        ("", &[], "this is no invite".to_owned()),
    ] {
        for dry in [&[][..], &["--dry-run"]] {
            let output = join(&a, invite, &[more, dry].concat());

            assert_eq!(
                (code(&output), stdout(&output).as_str()),
                (2, ""),
                "{invite} {more:?}"
            );
            assert!(stderr(&output).contains(&said), "{}", stderr(&output));
        }
        assert_eq!(fs::read_to_string(&a).unwrap(), before);
    }
    let left = fs::read_dir(a.parent().unwrap()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with('.')));
}

#[test]
fn a_configuration_that_is_wrong_or_missing_joins_nobody() {
    let scratch = Scratch::new();
    let (b, _) = node(&scratch, 2, "");
    let (wrong, _) = node(&scratch, 1, "speed = 7\n");
    let of_b = invite(&b, &[]);

    let missing = join(&scratch.path("none.toml"), &of_b, &[]);
    let wrong = join(&wrong, &of_b, &[]);

    assert_eq!(code(&missing), 2);
    assert!(stderr(&missing).contains("none.toml"), "{}", stderr(&missing));
    assert_eq!(code(&wrong), 2);
    assert!(
        stderr(&wrong).contains("device.speed: unknown field"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn top_without_a_terminal_says_what_to_use_instead() {
    let output = stream_router(&["top"]);

    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(stderr(&output).contains("peers --json"), "{}", stderr(&output));
    for interval in ["0", "0.4", "61", "-1", "nan", "soon"] {
        let output = stream_router(&["top", &format!("--interval={interval}")]);
        assert_eq!(code(&output), 2, "{interval}");
        assert!(stderr(&output).contains("from 0.5 to 60"), "{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    for arguments in [
        &["fly"][..],
        &["join"],
        &["check", "--name", "a.b"],
        &["status", "--yaml"],
        &[],
    ] {
        let output = stream_router(arguments);

        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (2, ""),
            "{arguments:?}"
        );
        let said = stderr(&output);
        assert!(
            said.contains("Usage") || said.contains("cannot name a node"),
            "{said}"
        );
    }
}

#[test]
fn help_and_version_are_there() {
    let help = stream_router(&["--help"]);
    let version = stream_router(&["--version"]);

    assert_eq!((code(&help), code(&version)), (0, 0));
    for command in [
        "keygen", "id", "check", "run", "invite", "join", "top", "reload", "status", "peers", "flows",
        "workers", "streams", "events", "counters", "routes", "capture", "doctor", "purge",
    ] {
        assert!(stdout(&help).contains(command), "{command}");
    }
    assert_eq!(
        stdout(&version),
        concat!("stream-router ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_file_that_is_not_there_names_no_node_of_which_anything_could_be_removed() {
    let scratch = Scratch::new();
    let file = scratch.path("mistyped.toml");

    let output = stream_router(&["purge", "--config", text(&file)]);

    assert_ne!(code(&output), 0);
    assert!(stderr(&output).contains("mistyped.toml"), "{}", stderr(&output));
}

#[test]
fn the_example_configuration_is_valid_as_it_is_and_with_everything_in_it() {
    let example = include_str!("../dist/stream-router.toml");
    // Comments have a space behind their sign, fields have none.
    let field = |line: &str| match line.strip_prefix('#') {
        Some(field) if field.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) => {
            field.to_owned()
        }
        _ => line.to_owned(),
    };
    let whole: Vec<String> = example.lines().map(field).collect();
    assert!(whole.iter().any(|line| line == "[[peer]]"));
    let scratch = Scratch::new();

    for (name, text_of_it) in [("example.toml", example), ("whole.toml", &whole.join("\n"))] {
        let file = scratch.file(name, text_of_it);
        let output = stream_router(&["check", "--config", text(&file)]);

        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{name}");
    }
}

#[test]
fn a_collector_is_taken_only_by_a_program_that_can_send_to_it() {
    let scratch = Scratch::new();
    let section = "[device]\naddresses = ['10.42.0.1/24']\n[otlp]\nendpoint = 'http://127.0.0.1'\n";
    let file = scratch.file("otlp.toml", section);

    let output = stream_router(&["check", "--config", text(&file)]);

    let refusal =
        ":4: otlp.endpoint: this program was built without OTLP (allowed: no [otlp] section, or a program";
    let is_refused = stderr(&output).contains(refusal);
    assert_eq!(is_refused, !cfg!(feature = "otlp"), "{}", stderr(&output));
    assert_eq!(code(&output) == 0, cfg!(feature = "otlp"));
}

#[test]
fn generate_describes_every_command_and_not_itself() {
    let scratch = Scratch::new();
    for what in ["man", "completions"] {
        let output = stream_router(&["generate", what, "--out", text(scratch.0.path())]);
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{what}");
    }
    let read = |name: &str| fs::read_to_string(scratch.path(name)).unwrap();

    let help = stdout(&stream_router(&["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(
        commands.contains(&"run") && !commands.contains(&"generate"),
        "{help}"
    );
    for command in commands {
        assert!(
            scratch.path(&format!("stream-router-{command}.1")).exists(),
            "{command}"
        );
    }
    assert!(!scratch.path("stream-router-generate.1").exists());
    for completion in ["stream-router.bash", "stream-router.fish", "_stream-router"] {
        assert!(read(completion).contains(" complete -- "), "{completion}");
    }
    let words = stdout(&stream_router(&["complete", "--", "flows", "--so"]));
    assert!(
        words.starts_with("--socket\t") && words.contains("\n--sort\t"),
        "{words}"
    );
    assert!(read("stream-router.1").contains("EXIT STATUS"));
}

#[test]
fn generate_names_a_directory_that_is_not_there() {
    let output = stream_router(&["generate", "man", "--out", "/nonexistent/man"]);

    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("/nonexistent/man"),
        "{}",
        stderr(&output)
    );
}
