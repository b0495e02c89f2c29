//! Where a function is in a script, and whether it runs there.

use super::page::is_user_event;

/// Words before a parenthesis that is no call.
pub(super) const NO_CALLEES: [&[u8]; 21] = [
    b"await",
    b"case",
    b"catch",
    b"delete",
    b"do",
    b"else",
    b"for",
    b"if",
    b"in",
    b"instanceof",
    b"new",
    b"of",
    b"return",
    b"super",
    b"switch",
    b"throw",
    b"typeof",
    b"void",
    b"while",
    b"with",
    b"yield",
];

/// Functions that register a function for an event.
pub(super) const LISTENERS: [&[u8]; 8] =
    [b"addEventListener", b"attachEvent", b"bind", b"delegate", b"listen", b"live", b"on", b"one"];

/// Functions that run a function which is passed by its name.
pub(super) const STARTERS: [&[u8]; 10] = [
    b"$",
    b"finally",
    b"forEach",
    b"jQuery",
    b"queueMicrotask",
    b"ready",
    b"requestAnimationFrame",
    b"setInterval",
    b"setTimeout",
    b"then",
];

/// Properties whose functions a library runs.
pub(super) const RUN_PROPERTIES: [&[u8]; 7] =
    [b"complete", b"constructor", b"created", b"load", b"mounted", b"ready", b"success"];

/// A token before the current one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EarlierToken<'a> {
    None,
    Word(&'a [u8]),
    Value,
    Arrow,
    Symbol(u8),
}

/// The place of a function in an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FunctionPlace<'a> {
    Statement,
    /// Argument of a call that runs it.
    Argument,
    /// Argument of a call that runs it after a click.
    ClickArgument,
    Assigned {
        name: &'a [u8],
        is_property: bool,
    },
    Property(&'a [u8]),
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BracketKind<'a> {
    /// Parenthesis of a call. `is_method` if the callee follows a point.
    Call {
        callee: &'a [u8],
        is_method: bool,
        is_after_click: bool,
    },
    Parameters(usize),
    Body {
        function: usize,
        /// Whether the function is a declaration, which a parenthesis behind it does not call.
        is_declaration: bool,
    },
    /// Pattern with names of a function.
    Pattern(usize),
    /// Expression behind an arrow.
    ExpressionBody(usize),
    Other,
}

/// An open bracket.
#[derive(Clone, Copy)]
pub(super) struct OpenBracket<'a> {
    pub(super) symbol: u8,
    pub(super) kind: BracketKind<'a>,
    pub(super) place: FunctionPlace<'a>,
    /// Number of possible parameters before the bracket.
    pub(super) names: usize,
}

/// Returns whether a property with this name handles an event that needs no click.
pub(super) fn runs_by_itself(name: &[u8]) -> bool {
    name.strip_prefix(b"on").is_some_and(|event| {
        event.first().is_some_and(u8::is_ascii_lowercase) && !is_user_event(event)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!(NO_CALLEES.is_sorted() && LISTENERS.is_sorted());
        assert!(STARTERS.is_sorted() && RUN_PROPERTIES.is_sorted());
    }
}
