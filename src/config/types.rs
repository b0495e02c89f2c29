//! What a value can be: each kind takes a value as written and gives its final type, or says what
//! it found and what it expected, in the words of the file.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use toml::de::DeValue;

use super::{
    problem::Wrong,
    reader::{Parsed, Value},
    show,
};

/// Above any sense, far below what would overflow a clock.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Longer text than this is no number with a unit.
const MAX_MEASURE: usize = 40;

impl Value<'_> {
    /// A variable's text counts as a string whatever it looks like.
    pub(super) fn text(&self) -> Option<&str> {
        match self.toml {
            DeValue::String(text) => Some(text),
            _ => self.raw,
        }
    }

    /// "found …, expected …"
    pub(super) fn wrong<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        Err(Wrong::one(describe(self.toml), expected))
    }

    /// The same, with the type in place of the value.
    pub(super) fn wrong_secret<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        Err(Wrong::one(type_of(self.toml), expected))
    }
}

/// A value as an operator would quote it, long ones cut.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 60 => {
            show::quoted(&text.chars().take(60).chain(['…']).collect::<String>())
        }
        DeValue::String(text) => show::quoted(text),
        DeValue::Integer(number) => integer_of(number)
            .map_or_else(|| "an integer of more than 64 bits".into(), |number| number.to_string()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(list) if list.is_empty() => "an empty list".into(),
        other => type_of(other).into(),
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn integer_of(number: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// `true` or `false`.
pub(super) fn boolean(value: Value<'_>) -> Parsed<bool> {
    match value.toml {
        DeValue::Boolean(boolean) => Ok(*boolean),
        _ => value.wrong("true or false"),
    }
}

/// Any string without NUL: none of them reaches a program or a system call otherwise.
pub(super) fn text(value: Value<'_>) -> Parsed<String> {
    match value.text() {
        Some(text) if !text.contains('\0') => Ok(text.into()),
        _ => value.wrong("a string"),
    }
}

/// [`text`], never printed.
pub(super) fn secret(value: Value<'_>) -> Parsed<String> {
    match value.text() {
        Some(text) if !text.contains('\0') => Ok(text.into()),
        _ => value.wrong_secret("a string"),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl Fn(Value<'_>) -> Parsed<T> {
    move |value| {
        let chosen = choices.iter().find(|(name, _)| value.text() == Some(name));
        chosen.map(|(_, choice)| *choice).ok_or(()).or_else(|()| {
            let names: Vec<_> = choices.iter().map(|(name, _)| show::quoted(name)).collect();
            value.wrong(names.join(" or "))
        })
    }
}

/// An integer within bounds.
pub(super) fn integer<T: TryFrom<i64> + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(Value<'_>) -> Parsed<T> {
    move |value| {
        let number = match value.toml {
            DeValue::Integer(number) => integer_of(number),
            _ => None,
        };
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => value.wrong(format!("an integer from {} to {}", range.start(), range.end())),
        }
    }
}

/// A duration of at least this, e.g. `"1h 30m"`. A bare number has no unit; 0 needs none.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(Value<'_>) -> Parsed<Duration> {
    move |value| {
        let parsed = match value.toml {
            DeValue::Integer(number) if integer_of(number) == Some(0) => Some(Duration::ZERO),
            _ => value.text().and_then(parse_duration),
        };
        if let Some(duration) = parsed.filter(|duration| range.contains(duration)) {
            return Ok(duration);
        }
        let hint = match value.toml {
            DeValue::Integer(number) if parsed.is_none() => integer_of(number)
                .map_or_else(String::new, |number| format!(", \"{number}s\" for instance")),
            _ => String::new(),
        };
        value.wrong(format!(
            "a duration from {} to {}, written like \"500ms\", \"1h 30m\" or \"1d\"{hint}",
            show::duration(*range.start()),
            show::duration(*range.end()),
        ))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics where seconds overflow by a carry ("18446744073709551615s 1000ms"): numbers
    // this short cannot add up to that.
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if text.len() > MAX_MEASURE || longest > Some(9) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A number of bytes: `"100MB"` is decimal, `"100MiB"` binary, a bare integer bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(Value<'_>) -> Parsed<u64> {
    move |value| {
        let bytes = match value.toml {
            DeValue::Integer(number) => integer_of(number).and_then(|n| u64::try_from(n).ok()),
            _ => value.text().and_then(parse_size),
        };
        match bytes {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            _ => value.wrong(format!(
                "a size from {} to {}, written like \"100MB\" (decimal), \"100MiB\" or a number of \
                 bytes",
                show::size(*range.start()),
                show::size(*range.end()),
            )),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    if text.len() > MAX_MEASURE {
        return None;
    }
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// [`size`] of something held in memory.
pub(super) fn memory_size(range: RangeInclusive<u64>) -> impl Fn(Value<'_>) -> Parsed<usize> {
    let size = size(range);
    move |value| {
        let bytes = size(value)?;
        usize::try_from(bytes).or_else(|_| value.wrong("a size that this machine can address"))
    }
}

/// A list of something; the wrong ones are told by their position, counted from 0.
pub(super) fn list<T>(
    kind: impl Fn(Value<'_>) -> Parsed<T>,
) -> impl Fn(Value<'_>) -> Parsed<Vec<T>> {
    move |value| {
        let DeValue::Array(elements) = value.toml else {
            return value.wrong("a list, written like [\"one\", \"two\"]");
        };
        let element = |(index, element): (usize, &toml::Spanned<DeValue<'_>>)| {
            let element = Value { toml: element.get_ref(), raw: None, base: value.base };
            (format!("[{index}]"), kind(element))
        };
        gather(elements.iter().enumerate().map(element))
    }
}

/// A table of names to something.
pub(super) fn table<T>(
    kind: impl Fn(&str, Value<'_>) -> Parsed<T>,
) -> impl Fn(Value<'_>) -> Parsed<Vec<T>> {
    move |value| {
        let DeValue::Table(entries) = value.toml else {
            return value.wrong("a table, written like { name = \"value\" }");
        };
        gather(entries.iter().map(|(name, inner)| {
            let inner = Value { toml: inner.get_ref(), raw: None, base: value.base };
            (format!(".{}", show::key(name.get_ref())), kind(name.get_ref(), inner))
        }))
    }
}

/// All parts, or all that is wrong with them.
fn gather<T>(parts: impl Iterator<Item = (String, Parsed<T>)>) -> Parsed<Vec<T>> {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (part, parsed) in parts {
        match parsed {
            Ok(parsed) => good.push(parsed),
            Err(wrongs) => wrong.extend(wrongs.into_iter().map(|inner| inner.within(&part))),
        }
    }
    if wrong.is_empty() { Ok(good) } else { Err(wrong) }
}
