//! `stream-router complete`: what may stand at the end of a command line, for the shells.
//!
//! The shells' own files in `complete/` give it the words before the cursor, and show what it prints: a candidate on each
//! line, behind a tab what it means; or [`FILES`] alone. So every shell knows the same, peers of the running node included.

mod candidate;
mod peers;

use std::path::{Path, PathBuf};

use clap::{Arg, Command, ValueHint};

use super::outcome::{Outcome, print};
use super::which::{control_of, usual_file};
use crate::config::Instance;
use candidate::Candidate;
use peers::Peers;

/// Printed in place of candidates where the name of a file may stand.
const FILES: &str = ":files";

/// Words of a capture's filter, each with what may stand behind it.
const FILTER_WORDS: [(&str, Behind); 20] = [
    ("host", Behind::Address),
    ("net", Behind::Nothing),
    ("port", Behind::Nothing),
    ("portrange", Behind::Nothing),
    ("src", Behind::Address),
    ("dst", Behind::Address),
    ("ip", Behind::Filter),
    ("ip6", Behind::Filter),
    ("tcp", Behind::Filter),
    ("udp", Behind::Filter),
    ("icmp", Behind::Filter),
    ("icmpv6", Behind::Filter),
    ("sctp", Behind::Filter),
    ("proto", Behind::Nothing),
    ("peer", Behind::Peer),
    ("less", Behind::Nothing),
    ("greater", Behind::Nothing),
    ("and", Behind::Filter),
    ("or", Behind::Filter),
    ("not", Behind::Filter),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Filter,
    Address,
    Peer,
    /// Nothing that is known.
    Nothing,
}

/// Prints what may stand in the place of the last of `words`, which are those behind the program's name.
pub(super) fn complete(words: &[String], mut command_line: Command) -> Outcome {
    command_line.build();
    let place = Place::of(words, &command_line);
    if place.wants_files() {
        return print(FILES);
    }
    for Candidate { text, meaning } in place.candidates(&Peers::asked_at(place.socket.clone())) {
        print(format_args!("{text}\t{meaning}"))?;
    }
    Ok(())
}

/// The place of the word that is to be completed.
struct Place<'a> {
    command: &'a Command,
    /// The option whose value it is.
    option: Option<&'a Arg>,
    /// How many words without an option stand before it behind the command.
    n_plain: usize,
    /// Whether a `--` stands before it.
    is_plain_only: bool,
    /// What is there of the word; of a value in one word with its option, the value.
    begun: &'a str,
    /// What stands before that in the word.
    head: &'a str,
    /// The word before it.
    before: &'a str,
    /// The control socket that the words before name.
    socket: Option<PathBuf>,
    /// The configuration file that they name.
    config: Option<PathBuf>,
}

impl<'a> Place<'a> {
    fn of(words: &'a [String], command_line: &'a Command) -> Self {
        let (last, before) = words
            .split_last()
            .map_or(("", &words[..0]), |(last, before)| (last.as_str(), before));
        let mut place = Self {
            command: command_line,
            option: None,
            n_plain: 0,
            is_plain_only: false,
            begun: last,
            head: "",
            before: before.last().map_or("", String::as_str),
            socket: None,
            config: None,
        };
        let mut last_option = None;
        for word in before {
            // bash takes an equals sign for a word.
            if word == "=" && last_option.is_some() {
                place.option = last_option;
                continue;
            }
            place.step(word, &mut last_option);
        }
        match last.strip_prefix("--").and_then(|long| long.split_once('=')) {
            _ if last == "=" && last_option.is_some() => {
                (place.option, place.begun) = (last_option, "");
            }
            Some((name, value)) if !place.is_plain_only && place.option.is_none() => {
                place.option = place.long(name);
                (place.head, place.begun) = last.split_at(last.len() - value.len());
            }
            _ => {}
        }
        place
    }

    /// Takes the next of the words before the place.
    fn step(&mut self, word: &str, last_option: &mut Option<&'a Arg>) {
        if let Some(option) = self.option.take() {
            self.note(option, word);
        } else if !self.is_plain_only && word == "--" {
            self.is_plain_only = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.is_plain_only) {
            let (name, value) = long
                .split_once('=')
                .map_or((long, None), |(name, value)| (name, Some(value)));
            let option = self.long(name);
            *last_option = option;
            match (option, value) {
                (Some(option), Some(value)) => self.note(option, value),
                (option, None) => self.option = option.filter(|option| wants_value(option)),
                (None, Some(_)) => {}
            }
        } else if let Some(short) = word
            .strip_prefix('-')
            .filter(|short| !short.is_empty() && !self.is_plain_only)
        {
            let mut options = self.command.get_arguments();
            let option = options.find(|option| option.get_short() == short.chars().next_back());
            self.option = option.filter(|option| wants_value(option));
        } else if let Some(command) = self.command.find_subcommand(word).filter(|_| self.n_plain == 0) {
            self.command = command;
        } else {
            self.n_plain += 1;
        }
    }

    fn note(&mut self, option: &Arg, value: &str) {
        match option.get_id().as_str() {
            "socket" => self.socket = Some(value.into()),
            "config" => self.config = Some(value.into()),
            "instance" => {
                let instance: Option<Instance> = value.parse().ok();
                self.socket = instance.as_ref().map(control_of);
                self.config = instance.as_ref().map(Instance::config);
            }
            _ => {}
        }
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command
            .get_arguments()
            .find(|option| option.get_long() == Some(name))
    }

    /// Returns the argument that the word is a value of, unless it begins an option.
    fn argument(&self) -> Option<&'a Arg> {
        if self.option.is_some() {
            return self.option;
        }
        if self.begun.starts_with('-') && !self.is_plain_only {
            return None;
        }
        let plain: Vec<_> = self.command.get_positionals().collect();
        let repeated = plain
            .last()
            .filter(|last| last.get_num_args().is_some_and(|n| n.max_values() > 1));
        plain.get(self.n_plain).or(repeated).copied()
    }

    fn wants_files(&self) -> bool {
        let hint = self.argument().map(Arg::get_value_hint);
        hint.is_some_and(|hint| {
            matches!(
                hint,
                ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
            )
        })
    }

    fn candidates(&self, peers: &Peers) -> Vec<Candidate> {
        let mut all = match self.argument() {
            Some(argument) => self.values(argument, peers),
            None if self.begun.starts_with('-') => options(self.command),
            None => Vec::new(),
        };
        if self.option.is_none() && self.n_plain == 0 && !self.is_plain_only {
            all.extend(subcommands(self.command));
        }
        all.retain(|candidate| candidate.text.starts_with(self.begun));
        for candidate in &mut all {
            candidate.text.insert_str(0, self.head);
        }
        all
    }

    fn values(&self, argument: &Arg, peers: &Peers) -> Vec<Candidate> {
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|value| !value.is_hide_set());
            return shown
                .map(|value| Candidate::new(value.get_name(), value.get_help().map(ToString::to_string)))
                .collect();
        }
        match argument.get_id().as_str() {
            "peer" | "peers" => peers.names(),
            "configured" => {
                let file = self.config.clone().or_else(usual_file);
                peers.configured(file.as_deref())
            }
            "instance" => {
                let all = Instance::configured();
                all.iter()
                    .map(|instance| Candidate::new(instance.name(), None))
                    .collect()
            }
            "protocol" => ["tcp", "udp", "icmp", "icmpv6", "sctp"]
                .map(|name| Candidate::new(name, None))
                .to_vec(),
            "filter" => self.filter_words(peers),
            _ => Vec::new(),
        }
    }

    fn filter_words(&self, peers: &Peers) -> Vec<Candidate> {
        let behind = FILTER_WORDS.iter().find(|(word, _)| *word == self.before);
        match behind.map_or(Behind::Filter, |(_, behind)| *behind) {
            Behind::Filter => FILTER_WORDS.map(|(word, _)| Candidate::new(word, None)).to_vec(),
            Behind::Address => {
                let mut words = peers.addresses();
                words.extend(["host", "net", "port"].map(|word| Candidate::new(word, None)));
                words
            }
            Behind::Peer => peers.names(),
            Behind::Nothing => Vec::new(),
        }
    }
}

/// Returns whether the next word is the option's value.
fn wants_value(option: &Arg) -> bool {
    option.get_num_args().is_some_and(|n| n.min_values() > 0) && !option.is_require_equals_set()
}

fn options(command: &Command) -> Vec<Candidate> {
    let shown = command.get_opts().chain(
        command
            .get_arguments()
            .filter(|one| !one.is_positional() && !one.get_action().takes_values()),
    );
    let shown = shown.filter(|option| !option.is_hide_set());
    let meaning = |option: &Arg| option.get_help().map(ToString::to_string);
    shown
        .filter_map(|option| {
            Some(Candidate::new(
                &format!("--{}", option.get_long()?),
                meaning(option),
            ))
        })
        .collect()
}

fn subcommands(command: &Command) -> impl Iterator<Item = Candidate> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| Candidate::new(command.get_name(), command.get_about().map(ToString::to_string)))
}

/// Writes what each shell needs into the directory `out`.
pub(super) fn write_scripts(out: &Path) -> std::io::Result<()> {
    for (name, script) in [
        ("stream-router.bash", include_str!("complete/stream-router.bash")),
        ("stream-router.fish", include_str!("complete/stream-router.fish")),
        ("_stream-router", include_str!("complete/_stream-router")),
    ] {
        std::fs::write(out.join(name), script)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Arguments;
    use crate::control::PeerList;
    use xtask::lab::ScratchDir;

    /// A peer with a name, and one without.
    fn list() -> PeerList {
        let peer = |id: &str, name: Option<&str>, net: &str| {
            serde_json::json!({
                "id": id, "name": name, "state": "connected", "address": null, "transport": null, "direction": null,
                "rtt_ms": null, "handshake_age_seconds": null, "connections": 0, "streams": 0, "allowed_ips": [net],
                "rate_bytes_per_second": null, "tx_frames": 0, "tx_bytes": 0, "rx_frames": 0, "rx_bytes": 0,
                "last_dial_error": null,
            })
        };
        let peers = [
            peer("12D3KooWabcdefgh", Some("berlin"), "10.42.0.2/32"),
            peer("12D3KooW12345678", None, "192.168.7.0/24"),
        ];
        serde_json::from_value(serde_json::json!({ "peers": peers })).expect("peers")
    }

    /// What may stand at the end of this line, which ends behind a space if the last word is to be a new one.
    fn completed(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let mut command_line = Arguments::command();
        command_line.build();
        let place = Place::of(&words, &command_line);
        if place.wants_files() {
            return vec![FILES.to_owned()];
        }
        let list = list();
        let all = place.candidates(&Peers::of(&list));
        all.into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn commands_and_options_complete() {
        assert_eq!(completed("flo"), ["flows"]);
        assert_eq!(completed("flows --so"), ["--socket", "--sort"]);
        assert_eq!(completed("peers --ver"), ["--verbose"]);
        assert_eq!(completed("flows --top 5 --js"), ["--json"]);
        assert!(completed("").contains(&"status".to_owned()));
        assert!(completed("help s").contains(&"streams".to_owned()));
        assert!(
            !completed("")
                .iter()
                .any(|one| ["generate", "complete"].contains(&one.as_str()))
        );
        assert_eq!(completed("status fl"), Vec::<String>::new());
        assert_eq!(completed("nonsense fl"), Vec::<String>::new());
    }

    #[test]
    fn every_command_and_every_option_completes_from_any_beginning_of_it() {
        let mut command_line = Arguments::command();
        command_line.build();
        for command in command_line.get_subcommands().filter(|one| !one.is_hide_set()) {
            let name = command.get_name();
            for option in command.get_arguments().filter(|one| !one.is_hide_set()) {
                let Some(long) = option.get_long() else { continue };
                let whole = format!("--{long}");
                for end in 2..=whole.len() {
                    let found = completed(&format!("{name} {}", &whole[..end]));
                    assert!(found.contains(&whole), "{name} {}: {found:?}", &whole[..end]);
                }
            }
        }
    }

    #[test]
    fn values_complete_behind_a_space_and_behind_an_equals_sign() {
        let all = ["bytes", "packets", "tx", "rx", "age", "idle"];
        assert_eq!(completed("flows --sort "), all);
        assert_eq!(completed("flows --sort = "), all);
        assert_eq!(completed("flows --sort ="), all);
        assert_eq!(completed("flows --sort = by"), ["bytes"]);
        assert_eq!(completed("flows --sort=by"), ["--sort=bytes"]);
        assert_eq!(completed("capture --direction b"), ["both"]);
        assert_eq!(completed("peers --state con"), ["connected", "connecting"]);
        assert_eq!(completed("check --config "), [FILES]);
        assert_eq!(completed("capture -w /tm"), [FILES]);
        assert_eq!(completed("peers --watch --so"), ["--socket", "--sort"]);
    }

    #[test]
    fn peers_complete_by_name_or_else_by_the_end_of_their_ids() {
        let all = ["berlin", "12345678"];
        assert_eq!(completed("flows --peer "), all);
        assert_eq!(completed("flows --peer=b"), ["--peer=berlin"]);
        assert_eq!(completed("peers "), all);
        assert_eq!(completed("peers berlin 12"), ["12345678"]);
        assert_eq!(completed("capture tcp and peer "), all);
    }

    #[test]
    fn peers_that_are_disabled_complete_where_the_file_is_changed() {
        let directory = ScratchDir::unique("complete").unwrap();
        let main = directory.path().join("sr.toml");
        let section = |name: &str| format!("[[peer]]\nid = 'x'\nname = '{name}'\nenabled = false\n");
        std::fs::write(&main, section("oslo")).unwrap();
        std::fs::create_dir(directory.path().join("sr.d")).unwrap();
        std::fs::write(
            directory.path().join("sr.d/rome.toml"),
            section("rome") + &section("berlin"),
        )
        .unwrap();

        for command in ["set", "remove"] {
            let line = format!("peer {command} --config {} ", main.display());
            assert_eq!(completed(&line), ["berlin", "12345678", "oslo", "rome"]);
            assert_eq!(completed(&format!("{line}ro")), ["rome"]);
            assert_eq!(
                completed(&format!("peer {command} --config /absent/sr.toml ")),
                ["berlin", "12345678"]
            );
        }
        let list = list();
        let all = Peers::of(&list).configured(Some(&main));
        let rome = all.iter().find(|peer| peer.text == "rome").unwrap();
        assert_eq!(rome.meaning, "disabled");
    }

    #[test]
    fn a_filter_completes_word_by_word() {
        assert_eq!(completed("capture tcp an"), ["and"]);
        assert_eq!(completed("capture host 10."), ["10.42.0.2"]);
        assert_eq!(completed("capture src po"), ["port"]);
        assert_eq!(completed("capture port "), Vec::<String>::new());
        assert_eq!(completed("capture --count 3 gr"), ["greater"]);
    }

    #[test]
    fn the_control_socket_is_the_one_that_was_named() {
        let mut command_line = Arguments::command();
        command_line.build();
        for (line, socket) in [
            ("flows --socket /a --peer ", Some("/a")),
            ("flows --socket=/a --peer ", Some("/a")),
            ("flows --socket = /a --peer ", Some("/a")),
            (
                "flows --name office --peer ",
                Some("/run/stream-router-office/control.sock"),
            ),
            ("flows --peer ", None),
        ] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(
                Place::of(&words, &command_line).socket.as_deref(),
                socket.map(Path::new),
                "{line}"
            );
        }
    }
}
