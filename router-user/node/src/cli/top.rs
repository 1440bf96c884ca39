//! `stream-router top`: a live view of a running node.
//!
//! 1. [`poll`] asks the node, no more often than the view wants.
//! 2. [`model`] makes rates and a history of the answers.
//! 3. [`view`] is what the user has chosen with the keys: pane, order, filter, interval.
//! 4. [`panes`] makes rows of model and view, [`peer_page`] what is said of one peer, and [`draw`] draws them.
//! 5. [`screen`] holds the terminal, and gives it back whatever happens.
//!
//! All but [`poll`] and [`screen`] are pure: time is an argument.

mod columns;
mod draw;
mod filter;
mod history;
mod model;
mod panes;
mod peer_page;
mod poll;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::outcome::Outcome;
use super::which::WhichNode;
use model::Model;
use poll::{PollSettings, Poller};
use screen::Screen;
use view::{KeyOutcome, View};

/// Time after which the view is drawn again without news, so that it shows how old the last answer is.
const REDRAWN_AFTER: Duration = Duration::from_secs(1);

/// Which node is watched, and how often it is asked.
#[derive(Debug, Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    which: WhichNode,
    /// Seconds between two requests, from 0.5 to 60
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
}

/// Why the view cannot be shown.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(
        "top needs a terminal for its input and output; in scripts use `stream-router status` or `stream-router peers --json`"
    )]
    NoTerminal,
}

/// Shows the node until the user quits.
pub(super) fn top(arguments: &TopArguments) -> Outcome {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Box::new(TopError::NoTerminal));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(show(arguments))
}

async fn show(arguments: &TopArguments) -> Outcome {
    let start = Instant::now();
    let mut view = View::new(arguments.interval);
    let mut model = Model::default();
    let (changes, changed) = watch::channel(poll_settings(&view, &model));
    let mut poller = Poller::new(&arguments.which.socket()?, start);
    // An error before the terminal is taken stays readable.
    model.handle_sample(poller.ask(None).await?);
    let mut ends = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .into_iter()
    .map(signal)
    .collect::<Result<Vec<_>, _>>()?;
    let (answers, mut answered) = mpsc::channel(1);
    let polling = tokio::spawn(poller.run(changed, answers));
    let mut screen = Screen::take()?;
    let mut events = EventStream::new();
    loop {
        screen.draw(|frame| draw::draw(frame, &model, &mut view, start.elapsed()))?;
        tokio::select! {
            event = events.next() => match event.transpose()? {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    if view.handle_key(key) == KeyOutcome::Quit {
                        break;
                    }
                }
                Some(_drawn_again) => {}
                None => break,
            },
            answer = answered.recv() => match answer {
                Some(Ok(sample)) => model.handle_sample(sample),
                Some(Err(error)) => model.handle_failure(&error),
                None => break,
            },
            () = any(&mut ends) => break,
            () = sleep(REDRAWN_AFTER) => {}
        }
        let settings = poll_settings(&view, &model);
        changes.send_if_modified(|last| {
            let changed = *last != settings;
            *last = settings;
            changed
        });
    }
    polling.abort();
    Ok(())
}

fn poll_settings(view: &View, model: &Model) -> PollSettings {
    PollSettings {
        interval: view.interval(),
        paused: view.is_paused(),
        flows: view.wants_flows().then(|| view.filter().query(model)),
    }
}

/// Returns once one of the signals came.
async fn any(signals: &mut [Signal]) {
    let came = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(came).await;
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|interval| view::INTERVALS.contains(interval))
        .ok_or_else(|| "a number of seconds from 0.5 to 60".to_owned())
}
