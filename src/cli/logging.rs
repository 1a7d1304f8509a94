//! The log: to standard error, as lines for people or as JSON for programs.
//!
//! With one line a request, writing each line at once costs a third of the server's throughput (and simplelog writes a
//! line in pieces). So lines are gathered for a few milliseconds and written together, by a thread of their own.

use std::collections::BTreeMap;
use std::io::{self, Write, stderr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, WriteLogger, format_description};

use crate::config::LogFormat;
use crate::time::Clock;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(5);
/// Most bytes that wait. Beyond that lines are dropped, and counted in the log: whoever does not read it must not stop
/// the server.
const WAITING_BYTES: usize = 1 << 20;
/// How long the end waits for the log to be read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts logging, for the whole process. What is logged last is on standard error once [`Gathered::finish`] returns.
///
/// # Errors
/// When something logs already, or the system gives no thread.
pub(super) fn start(level: LevelFilter, format: LogFormat) -> io::Result<Gathered> {
    let gathered = Gathered::default();
    let lines = gathered.clone();
    Builder::new().name("log".to_owned()).spawn(move || lines.write_on())?;
    let out = Lines { gathered: gathered.clone(), line: Vec::new() };
    let logger: Box<dyn SharedLogger> = match format {
        LogFormat::Text => {
            let config = ConfigBuilder::new()
                .set_time_format_custom(format_description!(
                    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
                ))
                .set_target_level(LevelFilter::Off)
                .set_thread_level(LevelFilter::Off)
                .set_location_level(LevelFilter::Off)
                .build();
            WriteLogger::new(level, config, out)
        }
        LogFormat::Json => Box::new(Json { level, clock: Clock::system(), out: Mutex::new(out) }),
    };
    CombinedLogger::init(vec![logger]).map_err(io::Error::other)?;
    Ok(gathered)
}

/// Lines that were logged and are not written yet.
#[derive(Clone, Default)]
pub(super) struct Gathered(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the thread has taken bytes that it has not written.
    writing: bool,
    finishing: bool,
    /// Lines that were dropped since the last were written.
    dropped: u64,
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        self.0.1.wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.len() > WAITING_BYTES {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes.extend_from_slice(line);
        // The thread is woken by the first line, not by each.
        if waiting.bytes.len() == line.len() {
            self.0.1.notify_all();
        }
    }

    fn write_on(&self) {
        let mut waiting = self.lock();
        loop {
            while waiting.bytes.is_empty() {
                waiting = self.wait(waiting);
            }
            if !waiting.finishing {
                let gathering = self.0.1.wait_timeout_while(waiting, GATHER, |waiting| {
                    !waiting.finishing && waiting.bytes.len() <= WAITING_BYTES
                });
                waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
            }
            let bytes = std::mem::take(&mut waiting.bytes);
            let dropped = std::mem::take(&mut waiting.dropped);
            waiting.writing = true;
            drop(waiting);
            // There is nobody to tell that the log cannot be written.
            let _ = stderr().lock().write_all(&bytes);
            if dropped > 0 {
                log::warn!("{dropped} lines were not logged: nobody read them in time");
            }
            waiting = self.lock();
            waiting.writing = false;
            self.0.1.notify_all();
        }
    }

    /// Waits until everything that was logged is written, though not for ever.
    pub(super) fn finish(&self) {
        let mut waiting = self.lock();
        waiting.finishing = true;
        self.0.1.notify_all();
        let written = self
            .0
            .1
            .wait_timeout_while(waiting, PATIENCE, |waiting| waiting.writing || !waiting.bytes.is_empty());
        drop(written);
    }
}

/// Takes a line in pieces and adds it whole.
struct Lines {
    gathered: Gathered,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            self.gathered.add(&self.line);
            self.line.clear();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One JSON object a line: `time`, `level`, `target`, `message`, and what else the record has.
struct Json {
    level: LevelFilter,
    clock: Clock,
    out: Mutex<Lines>,
}

impl Log for Json {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut members = Members::default();
        // Collecting into a map does not fail.
        let _ = record.key_values().visit(&mut members);
        let mut line = serde_json::json!({
            "time": self.clock.wall().to_rfc3339(),
            "level": record.level().as_str(),
            "target": record.target(),
            "message": record.args().to_string(),
        });
        if let serde_json::Value::Object(line) = &mut line {
            line.extend(members.0);
        }
        let _ = writeln!(self.out.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }

    fn flush(&self) {}
}

impl SharedLogger for Json {
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

#[derive(Default)]
struct Members(BTreeMap<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Members {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}
