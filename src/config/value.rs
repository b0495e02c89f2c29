//! A raw value, and the errors of parsing it.

use std::path::Path;

use toml::de::DeValue;

use super::{format, problem::InvalidValue};

/// A value to be parsed.
#[derive(Clone, Copy)]
pub(super) struct RawValue<'v> {
    pub(super) toml: &'v DeValue<'v>,
    pub(super) raw: Option<&'v str>,
    pub(super) base: &'v Path,
}

/// The result of parsing a value.
pub(super) type ParseResult<T> = Result<T, Vec<InvalidValue>>;

impl RawValue<'_> {
    /// Returns the value as a string. The text of a variable is a string even if it parses as another type.
    pub(super) fn text(&self) -> Option<&str> {
        match self.toml {
            DeValue::String(text) => Some(text),
            _ => self.raw,
        }
    }

    /// Returns an error "found …, expected …".
    pub(super) fn invalid<T>(&self, expected: impl Into<String>) -> ParseResult<T> {
        Err(InvalidValue::single(describe(self.toml), expected))
    }

    /// Like `invalid`, but hides a URL that may contain a password.
    pub(super) fn invalid_url<T>(&self, expected: impl Into<String>) -> ParseResult<T> {
        if self.text().is_some_and(|text| text.contains('@')) {
            self.invalid_secret(expected)
        } else {
            self.invalid(expected)
        }
    }

    /// Like `invalid`, but names the type of the value instead of the value.
    pub(super) fn invalid_secret<T>(&self, expected: impl Into<String>) -> ParseResult<T> {
        Err(InvalidValue::single(type_name(self.toml), expected))
    }
}

/// Formats a value for an error message; strings are cut after 60 characters.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 60 => {
            format::quoted(&text.chars().take(60).chain(['…']).collect::<String>())
        }
        DeValue::String(text) => format::quoted(text),
        DeValue::Integer(number) => to_i64(number)
            .map_or_else(|| "an integer of more than 64 bits".into(), |number| number.to_string()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(list) if list.is_empty() => "an empty list".into(),
        other => type_name(other).into(),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a decimal point",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn to_i64(number: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
