//! A headless Chromium in a network namespace, driven over a pipe with the DevTools protocol.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use xtask::lab::Namespace;
use xtask::lab::process::{signal, until, wait};

/// Chromium starts in 2 s here; on a busy machine it takes many times that.
const LIMIT: Duration = Duration::from_secs(60);

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// No window, no sandbox (it has none for root), and no request of its own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--window-size=1280,900",
];

/// The pipe is expected at descriptors 3 and 4.
const START: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >\"$HOME/chromium.log\" 2>&1";

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    n_calls: u64,
    problems: Vec<Value>,
}

impl Browser {
    /// Starts one that keeps its files in `directory`, and opens a page.
    ///
    /// # Errors
    /// When it does not start or the page cannot be opened.
    pub(crate) fn open(host: &Namespace, directory: &Path, url: &str) -> Result<Self> {
        let mut process = host
            .command("sh")
            .args(["-c", START, "chromium"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", directory.join("profile").display()))
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start chromium")?;
        let input = process.stdin.take().context("its input")?;
        let output = process.stdout.take().context("its output")?;
        let mut browser = Self {
            process,
            input,
            messages: read(output),
            session: None,
            n_calls: 0,
            problems: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        let opened = browser.call("Page.navigate", json!({"url": url}))?;
        ensure!(opened["errorText"].is_null(), "cannot open {url}: {opened}");
        Ok(browser)
    }

    /// What an expression of JavaScript yields in the page.
    ///
    /// # Errors
    /// When it throws, or there is no answer in time.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// Makes the window so wide, and lets the reader prefer `light` or `dark`.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(crate) fn show_as(&mut self, width: u32, scheme: &str) -> Result<()> {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let preference = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [preference]}))?;
        Ok(())
    }

    /// What a screen reader has of the page: role and name of everything that is not left out.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(crate) fn spoken(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}))?;
        let nodes = tree["nodes"].as_array().context("no nodes")?;
        let told = nodes.iter().filter(|node| node["ignored"] == false);
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        Ok(told
            .map(|node| (text(node, "role"), text(node, "name")))
            .collect())
    }

    /// Writes a picture of the whole page to the directory of the variable `PAGE_PICTURES`, for whoever sets it to look at.
    ///
    /// # Errors
    /// When there is no answer in time, or it cannot be written.
    pub(crate) fn picture(&mut self, name: &str) -> Result<()> {
        let Some(directory) = std::env::var_os("PAGE_PICTURES") else {
            return Ok(());
        };
        let whole = json!({"captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", whole)?;
        let picture = STANDARD.decode(picture["data"].as_str().context("no picture")?)?;
        Ok(fs::write(
            Path::new(&directory).join(format!("{name}.png")),
            picture,
        )?)
    }

    /// Presses a key where the focus is; `text` is what it types.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(crate) fn press(&mut self, key: &str, text: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": key_code(key)});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Waits until an expression yields `true`.
    ///
    /// # Errors
    /// When it does not in time; the message carries what the page says.
    pub(crate) fn wait_for(&mut self, expression: &str) -> Result<()> {
        let waited = until(expression, LIMIT, || {
            Ok((self.evaluate(expression)? == Value::Bool(true)).then_some(()))
        });
        if let Err(error) = waited {
            let text = self.evaluate("document.body.innerText")?;
            return Err(error.context(format!("problems {:?}, page {text}", self.problems)));
        }
        Ok(())
    }

    /// Errors and warnings of the page so far: what it threw, what it wrote to the console, and what the browser did.
    pub(crate) fn problems(&self) -> &[Value] {
        &self.problems
    }

    /// Forgets that the browser noted answers that were refusals, which a test has asked for.
    pub(crate) fn forget_refusals(&mut self) {
        let is_refusal = |problem: &Value| problem["params"]["entry"]["source"] == "network";
        self.problems.retain(|problem| !is_refusal(problem));
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.n_calls += 1;
        let mut message = json!({"id": self.n_calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        self.input.flush()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.messages.recv_timeout(left);
            let answer = answer.with_context(|| format!("chromium does not answer {method}"))?;
            if answer["id"] == self.n_calls {
                if !answer["error"].is_null() {
                    bail!("{method}: {answer}");
                }
                return Ok(answer["result"].clone());
            }
            self.note(answer);
        }
    }

    fn note(&mut self, event: Value) {
        let level = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => "error",
            Some("Runtime.consoleAPICalled") => event["params"]["type"].as_str().unwrap_or_default(),
            Some("Log.entryAdded") => event["params"]["entry"]["level"].as_str().unwrap_or_default(),
            _ => "",
        };
        if ["error", "warning", "assert"].contains(&level) {
            self.problems.push(event);
        }
    }
}

fn key_code(key: &str) -> u32 {
    match key {
        "Enter" => 13,
        "Escape" => 27,
        other => panic!("no code for {other}"),
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let ended = signal(&self.process, Signal::SIGTERM).and_then(|()| wait(&mut self.process, STOP_LIMIT));
        if let Err(error) = ended {
            eprintln!("chromium is killed with its namespace: {error:#}");
        }
    }
}

/// Messages end with a zero byte.
fn read(output: ChildStdout) -> Receiver<Value> {
    let (sender, messages) = sync_channel(1024);
    thread::spawn(move || {
        let messages = BufReader::new(output).split(0);
        let values = messages.map_while(|message| serde_json::from_slice(&message.ok()?).ok());
        for value in values {
            if sender.send(value).is_err() {
                break;
            }
        }
    });
    messages
}
