//! The log: to standard error, as lines for people or as JSON for programs.

use std::collections::BTreeMap;
use std::io::{Write, stderr};

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, WriteLogger, format_description};

use crate::config::LogFormat;
use crate::time::Clock;

/// Starts logging, for the whole process.
///
/// # Errors
/// When something logs already.
pub(super) fn start(level: LevelFilter, format: LogFormat) -> Result<(), log::SetLoggerError> {
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
            WriteLogger::new(level, config, stderr())
        }
        LogFormat::Json => Box::new(Json { level, clock: Clock::system() }),
    };
    CombinedLogger::init(vec![logger])
}

/// One JSON object a line: `time`, `level`, `target`, `message`, and what else the record has.
struct Json {
    level: LevelFilter,
    clock: Clock,
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
        // There is nobody to tell that the log cannot be written.
        let _ = writeln!(stderr().lock(), "{line}");
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
