//! Lines of a message.

/// Maximum number of carriage returns before a line feed that belong to the line break. Conversions of line breaks by
/// mistake cause two or three.
const MAX_RETURNS: usize = 4;

/// A line, as offsets into the message, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MailLine<'m> {
    pub(super) start: usize,
    /// The line without its line break.
    pub(super) content: &'m [u8],
    /// The start of the next line.
    pub(super) next: usize,
}

/// Returns the line at an offset; `None` at the end of the message. If `bare_return` is set, a carriage return without
/// a line feed is a line break too.
pub(super) fn line_at(bytes: &[u8], start: usize, bare_return: bool) -> Option<MailLine<'_>> {
    let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
    let is_end = |byte: &u8| *byte == b'\n' || (bare_return && *byte == b'\r');
    let Some(length) = rest.iter().position(is_end) else {
        return Some(MailLine { start, content: without_returns(rest), next: bytes.len() });
    };
    let (content, line_break) = rest.split_at_checked(length)?;
    let next = start.saturating_add(length).saturating_add(break_length(line_break));
    Some(MailLine { start, content: without_returns(content), next })
}

/// Returns the length of the line break at the start of `rest`.
fn break_length(rest: &[u8]) -> usize {
    let returns = rest.iter().take(MAX_RETURNS).take_while(|byte| **byte == b'\r').count();
    // A return that no line feed follows is a line break of its own.
    if rest.get(returns) == Some(&b'\n') { returns.saturating_add(1) } else { 1 }
}

/// Returns the line without returns at its end.
fn without_returns(mut content: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = content {
        content = rest;
    }
    content
}

/// Returns a part of a message without the line break at its end, which belongs to the delimiter after it.
pub(super) fn without_last_break(bytes: &[u8]) -> &[u8] {
    match bytes {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n' | b'\r'] => rest,
        _ => bytes,
    }
}

/// Returns whether a byte is a space or tab.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Returns the name of the header field that a line starts, as RFC 5322 section 2.2 defines it. Spaces before the colon
/// are accepted (section 4.5).
pub(super) fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().take(MAX_FIELD_NAME).position(|byte| *byte == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

/// Maximum length of the name of a field and the colon, bytes. Names in use have at most 60, and mail programs accept
/// longer ones.
const MAX_FIELD_NAME: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(bytes: &[u8], bare_return: bool) -> Vec<&[u8]> {
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(line) = line_at(bytes, start, bare_return) {
            lines.push(line.content);
            start = line.next;
        }
        lines
    }

    #[test]
    fn line_breaks_of_all_systems_end_lines() {
        let bytes = b"a\r\nb\nc\r\r\nd\re\r\rf\r\n";
        assert_eq!(contents(bytes, false), [&b"a"[..], b"b", b"c", b"d\re\r\rf"]);
        assert_eq!(contents(bytes, true), [&b"a"[..], b"b", b"c", b"d", b"e", b"", b"f"]);
        assert_eq!(contents(b"", false), [&b""[..]; 0]);
        assert_eq!(contents(b"\n\nx", false), [&b""[..], b"", b"x"]);
    }

    #[test]
    fn names_of_fields_have_no_spaces() {
        assert_eq!(field_name(b"Subject: a: b"), Some(&b"Subject"[..]));
        assert_eq!(field_name(b"Subject \t: a"), Some(&b"Subject"[..]));
        assert_eq!(field_name(b"My subject: a"), None);
        assert_eq!(field_name(b": a"), None);
        assert_eq!(field_name(b"Subject"), None);
    }
}
