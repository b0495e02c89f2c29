//! Types of values: how a raw value is converted to its final type, or what was found and what was expected, and how the
//! value is formatted.

use std::{fmt::Display, ops::RangeInclusive, rc::Rc, time::Duration};

use bytesize::ByteSize;
use toml::de::DeValue;

use super::{
    format,
    key::Key,
    similar::nearest,
    value::{ParseResult, RawValue, to_i64},
};

/// Upper bound of all durations; far below the limits of `Instant`.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const PEBIBYTE: u64 = 1 << 50;

/// Maximum length of a number with a unit, in bytes.
const MAX_QUANTITY_LEN: usize = 40;

pub(super) fn boolean() -> Key<bool> {
    let parse = |value: RawValue<'_>| match value.toml {
        DeValue::Boolean(boolean) => Ok(*boolean),
        DeValue::String(_) if value.raw.is_none() => {
            value.invalid("true or false, without quotation marks")
        }
        _ => value.invalid("true or false"),
    };
    Key::new(parse, bool::to_string)
}

/// A string without NUL bytes, which arguments and system calls cannot contain.
pub(super) fn text() -> Key<String> {
    Key::new(parse_text, |text: &String| format::quoted(text))
}

pub(super) fn parse_text(value: RawValue<'_>) -> ParseResult<String> {
    match value.text() {
        Some(text) if !text.contains('\0') => Ok(text.into()),
        _ => value.invalid("a string"),
    }
}

/// Like [`parse_text`], but errors hide the value.
pub(super) fn parse_secret(value: RawValue<'_>) -> ParseResult<String> {
    match value.text() {
        Some(text) if !text.contains('\0') => Ok(text.into()),
        _ => value.invalid_secret("a string"),
    }
}

/// One of the names in `choices`.
pub(super) fn choice<T: Copy + PartialEq + 'static>(
    choices: impl Into<Vec<(&'static str, T)>>,
) -> Key<T> {
    let choices = choices.into();
    let names = choices.clone();
    let parse = move |value: RawValue<'_>| {
        let chosen = choices.iter().find(|(name, _)| value.text() == Some(name));
        chosen.map(|(_, choice)| *choice).ok_or(()).or_else(|()| {
            let known = choices.iter().map(|(name, _)| *name);
            let near = value.text().and_then(|text| nearest(text, known.clone()));
            let near = near.map(|name| format!(" ({}?)", format::quoted(name)));
            let names: Vec<_> = known.map(format::quoted).collect();
            value.invalid(format!("{}{}", names.join(" or "), near.unwrap_or_default()))
        })
    };
    Key::new(parse, move |chosen| {
        let found = names.iter().find(|(_, choice)| choice == chosen);
        format::quoted(found.map_or("", |(name, _)| name))
    })
}

/// An integer in `range`.
pub(super) fn integer<T: TryFrom<i64> + PartialOrd + Display + 'static>(
    range: RangeInclusive<T>,
) -> Key<T> {
    let parse = move |value: RawValue<'_>| {
        let number = match value.toml {
            DeValue::Integer(number) => to_i64(number),
            _ => None,
        };
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => {
                let is_number = |text: &str| text.parse::<i64>().is_ok();
                let is_quoted = value.raw.is_none() && value.text().is_some_and(is_number);
                let hint = if is_quoted { ", without quotation marks" } else { "" };
                let (start, end) = (range.start(), range.end());
                value.invalid(format!("an integer from {start} to {end}{hint}"))
            }
        }
    };
    Key::new(parse, T::to_string)
}

/// A duration in `range`, e.g. `"1h 30m"`. Rejects a number without unit, except 0.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Key<Duration> {
    let parse = move |value: RawValue<'_>| {
        let parsed = match value.toml {
            DeValue::Integer(number) if to_i64(number) == Some(0) => Some(Duration::ZERO),
            _ => value.text().and_then(parse_duration),
        };
        if let Some(duration) = parsed.filter(|duration| range.contains(duration)) {
            return Ok(duration);
        }
        let number = match value.toml {
            DeValue::Integer(number) => to_i64(number),
            _ => value.text().and_then(|text| text.parse().ok()),
        };
        let number = number.filter(|number| parsed.is_none() && *number > 0);
        let hint = number.map(|number| format!(", for instance \"{number}s\""));
        let hint = hint.unwrap_or_default();
        value.invalid(format!(
            "a duration from {} to {}, written like \"500ms\", \"1h 30m\" or \"1d\"{hint}",
            format::duration(*range.start()),
            format::longest_duration(*range.end()),
        ))
    };
    Key::new(parse, |duration| format::quoted(&format::duration(*duration)))
}

fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics if the sum of the parts overflows ("18446744073709551615s 1000ms"). Numbers of
    // at most 9 digits cannot overflow.
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if text.len() > MAX_QUANTITY_LEN || longest > Some(9) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A size in `range`: `"100MB"` (decimal), `"100MiB"` or `"100M"` (binary), or a number of bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> Key<u64> {
    let parse = move |value: RawValue<'_>| {
        let bytes = match value.toml {
            DeValue::Integer(number) => to_i64(number).and_then(|n| u64::try_from(n).ok()),
            _ => value.text().and_then(parse_size),
        };
        match bytes {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            _ => value.invalid(format!(
                "a size from {} to {}, written like \"100MiB\" or \"100M\" (both binary), \"100MB\" (decimal) \
                 or a number of bytes",
                format::size(*range.start()),
                format::size(*range.end()),
            )),
        }
    };
    Key::new(parse, |bytes| format::quoted(&format::size(*bytes)))
}

fn parse_size(text: &str) -> Option<u64> {
    if text.len() > MAX_QUANTITY_LEN {
        return None;
    }
    // A unit of one letter is binary, as in nginx, Synapse and systemd; the library takes it for decimal.
    let is_letter = text.ends_with(|last: char| "kKmMgGtTpP".contains(last));
    let text = if is_letter { format!("{text}iB") } else { text.to_owned() };
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// Like [`size`], for data that is kept in memory.
pub(super) fn memory_size(range: RangeInclusive<u64>) -> Key<usize> {
    let size = size(range);
    let parse = move |value: RawValue<'_>| {
        let bytes = size.parse(value)?;
        usize::try_from(bytes).or_else(|_| value.invalid("a size that fits the address space"))
    };
    Key::new(parse, |bytes| format::quoted(&format::size(*bytes as u64)))
}

/// A list. Errors name the index of the element, from 0.
pub(super) fn list<T: 'static>(element: Key<T>) -> Key<Vec<T>> {
    let element = Rc::new(element);
    let format = Rc::clone(&element);
    let parse = move |value: RawValue<'_>| {
        let DeValue::Array(elements) = value.toml else {
            // A URL may contain a password.
            let text =
                value.text().filter(|text| text.len() <= MAX_QUANTITY_LEN && !text.contains('@'));
            let sample = text.map_or_else(|| "\"one\", \"two\"".to_owned(), format::quoted);
            return value.invalid_url(format!("a list, written like [{sample}]"));
        };
        let parse = |(index, inner): (usize, &toml::Spanned<DeValue<'_>>)| {
            let inner = RawValue { toml: inner.get_ref(), raw: None, base: value.base };
            (format!("[{index}]"), element.parse(inner))
        };
        collect(elements.iter().enumerate().map(parse))
    };
    Key::new(parse, move |elements: &Vec<T>| {
        let elements: Vec<_> = elements.iter().filter_map(|value| format.format(value)).collect();
        format!("[{}]", elements.join(", "))
    })
}

/// Parses a table of names and values.
pub(super) fn parse_table<T>(
    value: RawValue<'_>,
    parse: impl Fn(&str, RawValue<'_>) -> ParseResult<T>,
) -> ParseResult<Vec<T>> {
    let DeValue::Table(entries) = value.toml else {
        return value.invalid("a table, written like { name = \"value\" }");
    };
    collect(entries.iter().map(|(name, inner)| {
        let inner = RawValue { toml: inner.get_ref(), raw: None, base: value.base };
        (format!(".{}", format::key(name.get_ref())), parse(name.get_ref(), inner))
    }))
}

/// Collects the parsed parts, or the errors of all parts.
fn collect<T>(parts: impl Iterator<Item = (String, ParseResult<T>)>) -> ParseResult<Vec<T>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for (part, parsed) in parts {
        match parsed {
            Ok(value) => values.push(value),
            Err(part_errors) => {
                errors.extend(part_errors.into_iter().map(|error| error.nested_in(&part)));
            }
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}
