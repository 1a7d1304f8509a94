//! The log: writes to standard error, as text lines for people or as JSON for programs.
//!
//! Writing one line per request at once would cost a third of the server's throughput. So a separate thread
//! gathers lines for a few milliseconds and writes them together. The writers of simplelog are not
//! used: they write a line in pieces, and do not escape invisible characters.

use std::fmt::Write as _;
use std::io::{self, Write as _, stderr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, Config, SharedLogger};
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use crate::config::LogFormat;
use crate::time::Clock;

/// How long the thread gathers lines before it writes them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);
/// The limit of unwritten bytes. Beyond it, lines are dropped and counted in the log.
///
/// A reader that does not read the log must not stop the server.
const MAX_BUFFERED_BYTES: usize = 1 << 20;
/// How long [`LogBuffer::finish`] waits for the log to be written.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// Libraries that would log the requests and answers of webhooks, and the values in statements.
const SILENT: [&str; 4] = ["ureq", "ureq_proto", "rustls", "tokio_postgres"];

/// Starts logging for the whole process.
///
/// [`LogBuffer::finish`] writes the last lines to standard error.
///
/// # Errors
/// When a logger is already set, or the system gives no thread.
pub fn start(level: LevelFilter, format: LogFormat) -> io::Result<LogBuffer> {
    let buffer = LogBuffer::default();
    let lines = buffer.clone();
    Builder::new().name("log".to_owned()).spawn(move || lines.write_loop())?;
    let logger = Logger { level, format, clock: Clock::system(), buffer: buffer.clone() };
    CombinedLogger::init(vec![Box::new(logger)]).map_err(io::Error::other)?;
    Ok(buffer)
}

/// Lines that were logged and not yet written.
#[derive(Clone, Default)]
pub struct LogBuffer(Arc<(Mutex<BufferedLines>, Condvar)>);

#[derive(Default)]
struct BufferedLines {
    bytes: Vec<u8>,
    /// Whether the thread has taken bytes that it has not yet written.
    writing: bool,
    finishing: bool,
    /// The number of lines dropped since the last write.
    dropped: u64,
}

impl LogBuffer {
    fn lock(&self) -> MutexGuard<'_, BufferedLines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, BufferedLines>) -> MutexGuard<'a, BufferedLines> {
        self.0.1.wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.len() > MAX_BUFFERED_BYTES {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes.extend_from_slice(line);
        // Only the first line wakes the thread.
        if waiting.bytes.len() == line.len() {
            self.0.1.notify_all();
        }
    }

    fn write_loop(&self) {
        let mut waiting = self.lock();
        loop {
            while waiting.bytes.is_empty() {
                waiting = self.wait(waiting);
            }
            if !waiting.finishing {
                let gathering = self.0.1.wait_timeout_while(waiting, FLUSH_INTERVAL, |waiting| {
                    !waiting.finishing && waiting.bytes.len() <= MAX_BUFFERED_BYTES
                });
                waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
            }
            let bytes = std::mem::take(&mut waiting.bytes);
            let dropped = std::mem::take(&mut waiting.dropped);
            waiting.writing = true;
            drop(waiting);
            // A failure to write the log cannot be reported anywhere.
            let _ = stderr().lock().write_all(&bytes);
            if dropped > 0 {
                log::warn!("{dropped} lines were not logged: standard error was not read in time");
            }
            waiting = self.lock();
            waiting.writing = false;
            self.0.1.notify_all();
        }
    }

    /// Waits until everything that was logged is written, for a limited time.
    pub fn finish(&self) {
        let mut waiting = self.lock();
        waiting.finishing = true;
        self.0.1.notify_all();
        let written = self.0.1.wait_timeout_while(waiting, FINISH_TIMEOUT, |waiting| {
            waiting.writing || !waiting.bytes.is_empty()
        });
        drop(written);
    }
}

/// Formats each record as a line.
///
/// A text line has the time, the level and the message. A JSON line is an object with `time`, `level`,
/// `target`, `message` and the fields of the record. A field `message` replaces the message, which otherwise
/// repeats the fields as text for people.
struct Logger {
    level: LevelFilter,
    format: LogFormat,
    clock: Clock,
    buffer: LogBuffer,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        metadata.level() <= self.level && !SILENT.contains(&crate_name)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let time = self.clock.wall().to_rfc3339();
        let mut line = match self.format {
            LogFormat::Text => {
                printable(format!("{time} [{}] {}", record.level(), record.args()), |letter, line| {
                    line.extend(letter.escape_unicode());
                })
            }
            LogFormat::Json => printable(json(&time, record), |letter, line| {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    // Writing into a string does not fail.
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }),
        };
        line.push('\n');
        self.buffer.add(line.as_bytes());
    }

    fn flush(&self) {}
}

impl SharedLogger for Logger {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

fn json(time: &str, record: &Record<'_>) -> String {
    let mut members = JsonFields(serde_json::Map::new());
    for (name, value) in [("time", time), ("level", record.level().as_str()), ("target", record.target())] {
        members.0.insert(name.to_owned(), value.into());
    }
    // Collecting into a map does not fail.
    let _ = record.key_values().visit(&mut members);
    members.0.entry("message").or_insert_with(|| record.args().to_string().into());
    serde_json::Value::Object(members.0).to_string()
}

/// The line with each invisible character escaped by `escape`.
///
/// So text from a client can neither start a new line nor change the direction of the text.
fn printable(line: String, escape: impl Fn(char, &mut String)) -> String {
    // The common case.
    if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return line;
    }
    let mut printable = String::with_capacity(line.len() + 1);
    for letter in line.chars() {
        if is_printable(letter) { printable.push(letter) } else { escape(letter, &mut printable) }
    }
    printable
}

fn is_printable(letter: char) -> bool {
    matches!(letter, ' '..='~')
        || !matches!(
            get_general_category(letter),
            Category::Control | Category::Format | Category::LineSeparator | Category::ParagraphSeparator
        )
}

/// The fields of a record. Empty fields are left out.
struct JsonFields(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_f64(), value.to_bool()) {
            (Some(number), _, _) => number.into(),
            (None, Some(number), _) => number.into(),
            (None, None, Some(flag)) => flag.into(),
            (None, None, None) => serde_json::Value::from(value.to_string()),
        };
        if value != "" {
            self.0.insert(key.as_str().to_owned(), value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_json_stays_valid() {
        let text =
            |line: &str| printable(line.to_owned(), |letter, line| line.extend(letter.escape_unicode()));
        assert_eq!(
            text("a\nb\u{1b}[31m \u{202e}c\u{2028} \u{85}é👩"),
            "a\\u{a}b\\u{1b}[31m \\u{202e}c\\u{2028} \\u{85}é👩"
        );
    }

    #[test]
    fn json_lines_have_a_short_message_and_each_field_once() {
        let user = "\u{202e}a\n\u{e0001}\"";
        let fields = [
            ("message", Value::from("request")),
            ("user", Value::from(user)),
            ("code", Value::from("")),
            ("fence", Value::from(7_i64)),
            ("automatic", Value::from(true)),
        ];
        let buffer = LogBuffer::default();
        let logger = Logger {
            level: LevelFilter::Info,
            format: LogFormat::Json,
            clock: Clock::system(),
            buffer: buffer.clone(),
        };
        for level in [Level::Info, Level::Debug] {
            let fields = fields.as_slice();
            let args = format_args!("request by {user}");
            logger.log(&Record::builder().level(level).target("t").args(args).key_values(&fields).build());
        }
        let line = String::from_utf8(buffer.lock().bytes.clone()).unwrap();
        assert!(line.is_ascii() && line.ends_with('\n'), "{line}");
        let mut read: serde_json::Value = serde_json::from_str(&line).unwrap();
        read["time"].take();
        let meant = serde_json::json!({ "time": null, "level": "INFO", "target": "t", "message": "request", "user": user, "fence": 7, "automatic": true });
        assert_eq!(read, meant);
    }
}
