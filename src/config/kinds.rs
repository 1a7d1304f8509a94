//! Parses, shows and describes the values of settings.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use super::types::{Secret, word};
use crate::time::Ttl;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum of a duration without another limit: 100 years.
pub(super) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

type Read<T> = Box<dyn Fn(&Value) -> Option<T> + Send + Sync>;

/// The values that a setting of type `T` accepts.
pub(super) struct Kind<T> {
    /// The accepted values, as the end of the sentence "it takes …".
    pub(super) allowed: String,
    pub(super) read: Read<T>,
    pub(super) show: Box<dyn Fn(&T) -> Value + Send + Sync>,
    pub(super) is_secret: bool,
    /// The command-line flag of the setting, if it has one.
    pub(super) flag: Option<&'static str>,
}

impl<T: 'static> Kind<T> {
    pub(super) fn new(
        allowed: impl Into<String>,
        read: impl Fn(&Value) -> Option<T> + Send + Sync + 'static,
        show: impl Fn(&T) -> Value + Send + Sync + 'static,
    ) -> Self {
        let (read, show) = (Box::new(read), Box::new(show));
        Self { allowed: allowed.into(), read, show, is_secret: false, flag: None }
    }

    /// Accepts `word`, too. It means `None`.
    pub(super) fn or(self, word: &'static str) -> Kind<Option<T>> {
        let Self { allowed, read, show, is_secret, flag } = self;
        let kind = Kind::new(
            format!("{allowed}, or {word:?}"),
            move |value| if value.as_str() == Some(word) { Some(None) } else { read(value).map(Some) },
            move |shown| shown.as_ref().map_or_else(|| word.into(), &show),
        );
        Kind { is_secret, flag, ..kind }
    }

    /// Accepts only the values for which `is_valid` is true.
    pub(super) fn only_if(self, is_valid: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let Self { allowed, read, show, is_secret, flag } = self;
        let read = Box::new(move |value: &Value| read(value).filter(&is_valid));
        Self { allowed, read, show, is_secret, flag }
    }

    pub(super) fn with_flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }
}

/// A value that is parsed from text.
pub(super) fn text<T: FromStr + Display + 'static>(allowed: &str) -> Kind<T> {
    Kind::new(allowed, |value| value.as_str()?.parse().ok(), |shown: &T| shown.to_string().into())
}

/// A text that is not empty.
pub(super) fn name(allowed: &str) -> Kind<String> {
    text(allowed).only_if(|name: &String| !name.is_empty())
}

/// The path of a file.
pub(super) fn path(allowed: &str) -> Kind<std::path::PathBuf> {
    Kind::new(
        allowed,
        |value| value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(Into::into),
        |path: &std::path::PathBuf| path.to_string_lossy().into_owned().into(),
    )
}

/// A list of at most `max` entries: an array in the file, separated by commas in the environment.
pub(super) fn list<T: 'static>(max: usize, of: Kind<T>) -> Kind<Vec<T>> {
    let Kind { allowed, read, show, .. } = of;
    let up_to = if max == usize::MAX { String::new() } else { format!("up to {max} ") };
    Kind::new(
        format!("a list of {up_to}{allowed}"),
        move |value| {
            let split = |text: &str| text.split(',').map(str::trim).map(Value::from).collect::<Vec<_>>();
            let entries = value.as_array().cloned().or_else(|| value.as_str().map(split))?;
            let mut entries = entries.iter().filter(|entry| entry.as_str() != Some(""));
            (entries.clone().count() <= max).then(|| entries.by_ref().map(&read).collect())?
        },
        move |entries: &Vec<T>| Value::Array(entries.iter().map(&show).collect()),
    )
}

/// A secret text. It is never shown.
pub(super) fn secret(
    allowed: impl Into<String>,
    is_valid: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Kind<Secret> {
    let read = move |value: &Value| value.as_str().filter(|text| is_valid(text)).map(Secret::from);
    Kind { is_secret: true, ..Kind::new(allowed, read, |_| "(not shown)".into()) }
}

/// A list of secrets of at least `min` bytes each. They are never shown.
pub(super) fn secrets(max: usize, min: usize) -> Kind<Vec<Secret>> {
    let allowed = format!("texts of at least {min} bytes without commas");
    Kind { is_secret: true, ..list(max, secret(allowed, move |text| text.len() >= min)) }
}

/// `true` or `false`.
pub(super) fn switch() -> Kind<bool> {
    let read = |value: &Value| value.as_bool().or_else(|| value.as_str()?.parse().ok());
    Kind::new("true or false", read, |shown| Value::Boolean(*shown))
}

/// One of a list of words. Case is ignored.
pub(super) fn choice<T: Copy + PartialEq + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> Kind<T> {
    let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let allowed = match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some(_) | None => quoted.concat(),
    };
    Kind::new(
        allowed,
        |value| {
            let given = value.as_str()?;
            words.iter().find(|(word, _)| given.eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning)
        },
        |shown| word(words, *shown).into(),
    )
}

/// A whole number: an integer in the file, digits in the environment.
pub(super) fn number<T>(min: T, max: T) -> Kind<T>
where
    T: Copy + Display + PartialOrd + TryFrom<i64> + TryInto<i64> + Send + Sync + 'static,
{
    Kind::new(
        format!("a whole number from {min} to {max}"),
        move |value| {
            let number = value.as_integer().or_else(|| value.as_str()?.parse().ok())?;
            T::try_from(number).ok().filter(|number| (min..=max).contains(number))
        },
        |number| Value::Integer((*number).try_into().unwrap_or(i64::MAX)),
    )
}

/// File permissions in octal. The owner must be able to read and write.
pub(super) fn permissions() -> Kind<u32> {
    Kind::new(
        "permissions in octal that let at least the owner read and write, such as \"0600\" or \"0660\"",
        |value| {
            let digits = value.as_str()?;
            let digits = digits.strip_prefix('0').filter(|digits| digits.len() == 3).unwrap_or(digits);
            let mode = u32::from_str_radix(digits, 8).ok()?;
            (digits.len() == 3 && mode & 0o600 == 0o600).then_some(mode)
        },
        |mode| format!("{mode:04o}").into(),
    )
}

/// A number of bytes, such as `"64KiB"`.
pub(super) fn size<T>(min: u64, max: u64) -> Kind<T>
where
    T: Copy + TryFrom<u64> + TryInto<u64> + 'static,
{
    Kind::new(
        format!("a whole number with a unit, from \"{}\" to \"{}\"", show_size(min), show_size(max)),
        move |value| {
            let bytes = read_size(value.as_str()?).filter(|bytes| (min..=max).contains(bytes))?;
            T::try_from(bytes).ok()
        },
        |bytes| show_size((*bytes).try_into().unwrap_or(u64::MAX)).into(),
    )
}

const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn read_size(text: &str) -> Option<u64> {
    let (number, unit) =
        SIZES.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim(), unit)))?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

/// Formats a size in the largest unit that gives a whole number.
fn show_size(bytes: u64) -> String {
    let fitting = SIZES.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    fitting.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A duration, such as `"10m"`.
pub(super) fn duration(min: Duration, max: Duration) -> Kind<Duration> {
    let max_shown = if max == CENTURY { "100 years".to_owned() } else { show_duration(max) };
    Kind::new(
        format!(
            "a duration from {} to {max_shown}, such as \"500ms\", \"30s\" or \"10m\"",
            show_duration(min)
        ),
        move |value| {
            let duration = humantime::parse_duration(value.as_str()?).ok()?;
            (min..=max).contains(&duration).then_some(duration)
        },
        |duration| show_duration(*duration).into(),
    )
}

/// A duration in lease time.
pub(super) fn ttl(min: Duration, max: Duration) -> Kind<Ttl> {
    let Kind { allowed, read, .. } = duration(min, max);
    Kind::new(allowed, move |value| read(value).map(Ttl::from_duration), |ttl| show_ttl(*ttl).into())
}

pub(super) fn show_ttl(ttl: Ttl) -> String {
    show_duration(Duration::from_millis(ttl.as_millis().unsigned_abs()))
}

/// Formats a duration in the largest unit that gives a whole number. Days are used from two days on.
fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    [("d", DAY, 2), ("h", HOUR, 1), ("m", MINUTE, 1), ("s", SECOND, 0)]
        .into_iter()
        .map(|(name, unit, min)| (name, unit.as_millis(), min))
        .find(|(_, unit, min)| milliseconds >= unit * min && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(name, unit, _)| format!("{}{name}", milliseconds / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_use_the_largest_exact_unit() {
        for (milliseconds, shown) in [
            (86_400_000, "24h"),
            (172_800_000, "2d"),
            (90_000_000, "25h"),
            (90_000, "90s"),
            (1_500, "1500ms"),
            (0, "0s"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), shown);
        }
    }

    #[test]
    fn sizes_need_a_unit_and_have_a_minimum() {
        let size = size::<u64>(64 << 10, 1 << 48);
        let read = |text: &str| (size.read)(&text.into());
        assert_eq!(read("10MiB"), Some(10 << 20));
        for bad in ["10", "10MB", "1KiB", "-1GiB", "99999999999GiB", "999999999999999999999GiB", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_skip_empty_items_and_have_a_limit() {
        let list = list(2, name("names"));
        assert_eq!((list.read)(&"a, ,b,".into()), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((list.read)(&"".into()), Some(Vec::new()));
        assert_eq!((list.read)(&"a,b,c".into()), None);
    }
}
