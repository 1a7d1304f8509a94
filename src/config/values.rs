//! How single values are read and shown: durations, sizes, choices.

use std::fmt;
use std::time::Duration;

/// A value as it was typed, before it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A text; all that the environment and the flags can give.
    Text(String),
    /// A list of texts, from the file.
    List(Vec<String>),
    /// A whole number, from the file.
    Number(i64),
    /// Yes or no, from the file.
    Flag(bool),
}

impl Given {
    pub(super) fn from_toml(value: &toml::Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(Self::Text(text.to_owned()));
        }
        if let Some(number) = value.as_integer() {
            return Some(Self::Number(number));
        }
        if let Some(flag) = value.as_bool() {
            return Some(Self::Flag(flag));
        }
        value
            .as_array()?
            .iter()
            .map(|entry| entry.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Self::List)
    }

    pub(super) fn text(self) -> Result<String, ()> {
        match self {
            Self::Text(text) => Ok(text),
            Self::List(_) | Self::Number(_) | Self::Flag(_) => Err(()),
        }
    }

    /// A list from the file, or a text with commas from elsewhere.
    pub(super) fn list(self) -> Result<Vec<String>, ()> {
        match self {
            Self::List(entries) => Ok(entries),
            Self::Text(text) => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                Ok(entries.map(str::to_owned).collect())
            }
            Self::Number(_) | Self::Flag(_) => Err(()),
        }
    }

    /// A whole number from the file, or its digits from elsewhere.
    fn number(self) -> Result<i64, ()> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => text.parse().map_err(drop),
            Self::List(_) | Self::Flag(_) => Err(()),
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "{text:?}"),
            Self::List(entries) => write!(formatter, "{entries:?}"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Flag(flag) => write!(formatter, "{flag}"),
        }
    }
}

/// A value of the file that is neither a text nor a list of texts, as it was typed or nearly so.
pub(super) fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Datetime(instant) => instant.to_string(),
        toml::Value::Table(_) => "{…}".to_owned(),
        toml::Value::Array(entries) => {
            format!("[{}]", entries.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        toml::Value::String(text) => format!("{text:?}"),
    }
}

/// `"10m"`: longer than nothing and shorter than a hundred years.
pub(super) fn duration(given: Given) -> Result<Duration, ()> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let parsed = humantime::parse_duration(&given.text()?).map_err(drop)?;
    (parsed >= Duration::from_millis(1) && parsed <= CENTURY).then_some(parsed).ok_or(())
}

/// A duration, or `word` for none.
pub(super) fn duration_or(word: &str, given: Given) -> Result<Option<Duration>, ()> {
    if given == Given::Text(word.to_owned()) { Ok(None) } else { duration(given).map(Some) }
}

/// A duration in the largest unit that shows it whole; in days from two of them.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    [("d", 86_400_000, 2), ("h", 3_600_000, 1), ("m", 60_000, 1), ("s", 1_000, 1)]
        .into_iter()
        .find(|(_, unit, least)| milliseconds >= unit * least && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("\"{milliseconds}ms\""),
            |(name, unit, _)| format!("\"{}{name}\"", milliseconds / unit),
        )
}

pub(super) fn show_duration_or(word: &str, duration: Option<Duration>) -> String {
    duration.map_or_else(|| format!("{word:?}"), show_duration)
}

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `"64MiB"`, at least 64 KiB; or `"unlimited"`.
pub(super) fn size(given: Given) -> Result<Option<u64>, ()> {
    let text = given.text()?;
    if text == "unlimited" {
        return Ok(None);
    }
    let bytes = size_in_units(&text)?;
    (bytes >= 64 * 1024).then_some(Some(bytes)).ok_or(())
}

fn size_in_units(text: &str) -> Result<u64, ()> {
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, unit)))
        .ok_or(())?;
    number.trim().parse::<u64>().map_err(drop)?.checked_mul(unit).ok_or(())
}

pub(super) fn show_size(size: Option<u64>) -> String {
    let Some(bytes) = size else { return "\"unlimited\"".to_owned() };
    UNITS
        .into_iter()
        .find(|(_, unit)| bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("\"{bytes}\""), |(name, unit)| format!("\"{}{name}\"", bytes / unit))
}

/// A size between `least` and `most` bytes.
pub(super) fn size_within(given: Given, least: usize, most: usize) -> Result<usize, ()> {
    let bytes = size_in_units(&given.text()?)?;
    usize::try_from(bytes).ok().filter(|bytes| (least..=most).contains(bytes)).ok_or(())
}

/// A whole number within these bounds.
pub(super) fn number_within(given: Given, least: usize, most: usize) -> Result<usize, ()> {
    let number = given.number()?;
    usize::try_from(number).ok().filter(|number| (least..=most).contains(number)).ok_or(())
}

/// A list of texts, as TOML.
pub(super) fn show_list(texts: &[String]) -> String {
    format!("{texts:?}")
}

/// A duration of up to a day.
pub(super) fn timeout(given: Given) -> Result<Duration, ()> {
    Some(duration(given)?).filter(|duration| *duration <= Duration::from_secs(24 * 60 * 60)).ok_or(())
}

/// `true` or `false`.
pub(super) fn yes_or_no(given: Given) -> Result<bool, ()> {
    match given {
        Given::Flag(flag) => Ok(flag),
        Given::Text(text) => text.parse().map_err(drop),
        Given::List(_) | Given::Number(_) => Err(()),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(given: Given, words: &[(&str, T)]) -> Result<T, ()> {
    let text = given.text()?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or(())
}

pub(super) fn show_choice<T: PartialEq>(chosen: &T, words: &[(&str, T)]) -> String {
    words
        .iter()
        .find(|(_, meaning)| meaning == chosen)
        .map_or_else(String::new, |(word, _)| format!("{word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_the_largest_unit_that_shows_them_whole() {
        for (milliseconds, shown) in [
            (86_400_000, "\"24h\""),
            (172_800_000, "\"2d\""),
            (90_000_000, "\"25h\""),
            (90_000, "\"90s\""),
            (1_500, "\"1500ms\""),
        ] {
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), shown);
        }
    }

    #[test]
    fn sizes_have_a_unit_and_a_least() {
        assert_eq!(size(Given::Text("10MiB".into())), Ok(Some(10 << 20)));
        for bad in ["10", "10MB", "1KiB", "-1GiB", "99999999999GiB", ""] {
            assert_eq!(size(Given::Text(bad.into())), Err(()), "{bad}");
        }
    }
}
