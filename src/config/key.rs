//! How the value of a single key is parsed and formatted.

use super::value::{ParseResult, RawValue};

type Parse<T> = dyn Fn(RawValue<'_>) -> ParseResult<T>;

/// Returns `None` for the value of a key that is not set.
type Format<T> = dyn Fn(&T) -> Option<String>;

/// How the value of one key is parsed and formatted.
pub(super) struct Key<T> {
    parse: Box<Parse<T>>,
    format: Box<Format<T>>,
    /// Computes the value of a key that is not set and has no default.
    absent: Option<fn() -> T>,
    pub(super) is_opaque: bool,
}

impl<T: 'static> Key<T> {
    pub(super) fn new(
        parse: impl Fn(RawValue<'_>) -> ParseResult<T> + 'static,
        format: impl Fn(&T) -> String + 'static,
    ) -> Self {
        Self {
            parse: Box::new(parse),
            format: Box::new(move |value| Some(format(value))),
            absent: None,
            is_opaque: false,
        }
    }

    /// Rejects values for which `is_valid` returns false.
    pub(super) fn filter(self, is_valid: fn(&T) -> bool, expected: &'static str) -> Self {
        let parse = move |raw: RawValue<'_>| match (self.parse)(raw)? {
            value if is_valid(&value) => Ok(value),
            _ => raw.invalid(expected),
        };
        Self { parse: Box::new(parse), ..self }
    }

    /// Adjusts each parsed value.
    pub(super) fn map(self, adjust: fn(T) -> T) -> Self {
        let parse = move |raw: RawValue<'_>| (self.parse)(raw).map(adjust);
        Self { parse: Box::new(parse), ..self }
    }

    /// Uses the value of `absent` for a key that is not set and has no default.
    pub(super) fn or_else(self, absent: fn() -> T) -> Self {
        Self { absent: Some(absent), ..self }
    }

    /// Marks the displayed text as incomplete: different values may have the same text.
    pub(super) fn opaque(self) -> Self {
        Self { is_opaque: true, ..self }
    }

    pub(super) fn parse(&self, value: RawValue<'_>) -> ParseResult<T> {
        (self.parse)(value)
    }

    /// Returns `None` for the value of a key that is not set.
    pub(super) fn format(&self, value: &T) -> Option<String> {
        (self.format)(value)
    }

    pub(super) fn absent(&self) -> Option<T> {
        self.absent.map(|absent| absent())
    }
}

/// Makes a key optional.
pub(super) fn optional<T: 'static>(key: Key<T>) -> Key<Option<T>> {
    let Key { parse, format, absent: _, is_opaque } = key;
    Key {
        parse: Box::new(move |value| parse(value).map(Some)),
        format: Box::new(move |value| value.as_ref().and_then(&format)),
        absent: Some(|| None),
        is_opaque,
    }
}
