//! Lines for the journal of systemd: each begins with its priority (sd-daemon(3)), and none has a time or a colour.

use std::env;
use std::fmt;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Environment variable with device and inode of the journal's socket: systemd.exec(5).
const VARIABLE: &str = "JOURNAL_STREAM";

/// Returns whether `output` is written to the journal.
pub(super) fn is_journal(output: &impl AsFd) -> bool {
    let Ok(stream) = env::var(VARIABLE) else {
        return false;
    };
    fstat(output).is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
}

fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream == format!("{device}:{inode}")
}

/// A format of text and values behind the priority.
pub(super) struct JournalFormat(Format<Full, ()>);

impl Default for JournalFormat {
    fn default() -> Self {
        Self(
            Format::default()
                .without_time()
                .with_level(false)
                .with_ansi(false),
        )
    }
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // The journal takes each line for a message.
        for line in text.lines() {
            writeln!(writer, "<{priority}>{line}")?;
        }
        Ok(())
    }
}

/// Returns the number of the level in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_has_a_priority_and_neither_time_nor_colour() {
        let written = SharedBuffer::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(JournalFormat::default())
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);

        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(peer = "x", "away");
            tracing::error!("two\nlines");
            tracing::trace!("small");
        });

        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let target = module_path!();
        let expected =
            format!("<4>{target}: away peer=\"x\"\n<3>{target}: two\n<3>lines\n<7>{target}: small\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn only_the_stream_that_is_named_is_the_journal() {
        assert!(is_stream("8:1234", 8, 1234));
        for other in ["8:123", "81234", "", "8:1234 "] {
            assert!(!is_stream(other, 8, 1234));
        }
    }
}
