//! The Tab key in the shells that the package has completions for.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::support::{NODE, machine};
use xtask::lab::process::text;
use xtask::lab::{Pair, PairPlan, ScratchDir, Terminal};

const LIMIT: Duration = Duration::from_secs(10);

/// How each shell is started without anybody's configuration, and how it finds the file in `$scripts`.
const SHELLS: [(&str, &str, &str); 3] = [
    (
        "bash",
        "bash --norc --noprofile -i",
        "source $scripts/stream-router.bash",
    ),
    (
        "zsh",
        "zsh -f -i",
        "fpath=($scripts $fpath); autoload -U compinit; compinit -u -D",
    ),
    (
        "fish",
        "fish --no-config -i",
        "source $scripts/stream-router.fish",
    ),
];

/// A shell that waits for commands.
struct Shell {
    name: &'static str,
    terminal: Terminal,
}

impl Shell {
    fn start(number: usize, scripts: &Path) -> Result<Self> {
        let (name, start, prepare) = SHELLS[number];
        let home = scripts.join(name);
        fs::create_dir(&home)?;
        let terminal = Terminal::start(&home, 160, 24)?;
        let programs = Path::new(NODE).parent().expect("a directory");
        terminal.type_text(&format!(
            "exec env -i TERM=$TERM HOME={} PATH={}:$PATH scripts={} {start}",
            home.display(),
            programs.display(),
            scripts.display()
        ))?;
        terminal.press("Enter")?;
        let shell = Self { name, terminal };
        // Its own words, so that what it echoes is not taken for what it says.
        shell.terminal.type_text(&format!("{prepare}; echo rea''dy"))?;
        shell.terminal.press("Enter")?;
        shell
            .terminal
            .wait_for("the shell is ready", |screen| screen.contains("\nready"))?;
        Ok(shell)
    }

    /// Types the beginning of a line and presses Tab; the line becomes `whole`.
    fn completes(&self, begun: &str, whole: &str) -> Result<()> {
        self.terminal.type_text("clear")?;
        self.terminal.press("Enter")?;
        self.terminal
            .wait_for("the screen is clear", |screen| !screen.contains("stream-router"))?;
        self.terminal.type_text(begun)?;
        self.terminal.press("Tab")?;
        let what = format!("{} completes {begun:?}", self.name);
        self.terminal.wait_for(&what, |screen| screen.contains(whole))?;
        // The editor of the line takes these in their order, whatever it is about.
        self.terminal.press("C-a")?;
        self.terminal.press("C-k")
    }
}

#[test]
fn commands_options_values_files_and_peers_complete_in_every_shell() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("completion").unwrap();
    let scripts = scratch.path();
    let mut generate = Command::new(NODE);
    generate.args(["generate", "completions", "--out"]).arg(scripts);
    text(&mut generate, LIMIT).unwrap();
    let example = scripts.join("example.toml");
    fs::write(&example, "").unwrap();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("pair").unwrap(),
    )
    .unwrap();
    let config = fs::read_to_string(pair.a.node.config()).unwrap();
    fs::write(
        pair.a.node.config(),
        config.replace("[[peer]]\n", "[[peer]]\nname = \"berlin\"\n"),
    )
    .unwrap();
    pair.a.node.start().unwrap();
    let asked = format!(
        "stream-router flows --socket {} --peer ",
        pair.a.node.socket().display()
    );
    // A peer that is disabled is none of the running node.
    let main = pair.a.node.config();
    let drop_ins = main.with_extension("d");
    fs::create_dir(&drop_ins).unwrap();
    let rome = "[[peer]]\nid = \"x\"\nname = \"rome\"\nenabled = false\n";
    fs::write(drop_ins.join("rome.toml"), rome).unwrap();
    let removed = format!("stream-router peer remove --config {} ", main.display());
    let checked = format!("stream-router check --config {}/", scripts.display());

    for number in 0..SHELLS.len() {
        let shell = Shell::start(number, scripts).unwrap();
        for (begun, rest) in [
            ("stream-router flo", "ws"),
            ("stream-router flows --sor", "t"),
            ("stream-router flows --sort pac", "kets"),
            ("stream-router flows --sort=pac", "kets"),
            ("stream-router peers --state idl", "e"),
            ("stream-router capture --direction ou", "t"),
            ("stream-router capture tcp and gre", "ater"),
            (&format!("{asked}ber"), "lin"),
            (&format!("{removed}ro"), "me"),
            (&format!("{checked}exa"), "mple.toml"),
        ] {
            shell.completes(begun, &format!("{begun}{rest}")).unwrap();
        }
    }
}
