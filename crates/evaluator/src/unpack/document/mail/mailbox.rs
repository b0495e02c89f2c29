//! Mailboxes: messages after lines that start with "From " (RFC 4155).

use super::lines::{field_name, line_at, without_last_break};
use crate::unpack::{
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

/// Returns whether a line separates messages. Programs differ in how much of the address and date they require.
pub(super) fn is_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ")
}

/// Returns a message without the separator before it. Some programs quote the separator.
pub(super) fn without_separator(bytes: &[u8]) -> &[u8] {
    match line_at(bytes, 0, !bytes.contains(&b'\n')) {
        Some(line) if is_separator(line.content) || line.content.starts_with(b">From ") => {
            bytes.get(line.next..).unwrap_or_default()
        }
        _ => bytes,
    }
}

/// Returns whether more than one separator is in the file, the first one at its start.
pub(super) fn has_several_messages(bytes: &[u8]) -> bool {
    let mut separators = Separators::new(bytes);
    separators.next().is_some_and(|first| first.start == 0) && separators.next().is_some()
}

/// Passes the messages.
pub(super) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut number = 0_u64;
    let mut separators = Separators::new(bytes).peekable();
    while let Some(separator) = separators.next() {
        let end = separators.peek().map_or(bytes.len(), |next| next.start);
        let message = bytes.get(separator.message..end).unwrap_or_default();
        number = number.saturating_add(1);
        unpacker
            .slice(EntryName::label(format!("message {number}")), without_last_break(message))?;
    }
    uncertain(bytes, unpacker)
}

/// Passes the messages with the separators that are uncertain, because some programs ignore these. Nothing if there are
/// none.
fn uncertain(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let all = || Separators::new(bytes);
    let mut start = None;
    let mut is_joined = false;
    for separator in all() {
        if separator.is_certain {
            whole(bytes, start, separator.start, is_joined, unpacker)?;
            start = Some(separator.message);
            is_joined = false;
        } else {
            is_joined = true;
        }
    }
    whole(bytes, start, bytes.len(), is_joined, unpacker)
}

/// Passes a message with uncertain separators in it.
fn whole(
    bytes: &[u8],
    start: Option<usize>,
    end: usize,
    is_joined: bool,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    match start.and_then(|start| bytes.get(start..end)) {
        Some(message) if is_joined => {
            unpacker.slice(EntryName::label("messages"), without_last_break(message))
        }
        _ => Ok(()),
    }
}

/// A line that separates messages.
#[derive(Clone, Copy, Debug)]
struct MailSeparator {
    start: usize,
    /// The start of the message.
    message: usize,
    /// Whether an empty line is before the separator.
    is_certain: bool,
}

/// Finds the separators: lines that start with "From ", before a header field.
struct Separators<'m> {
    bytes: &'m [u8],
    bare_return: bool,
    position: usize,
    after_empty: bool,
}

impl<'m> Separators<'m> {
    fn new(bytes: &'m [u8]) -> Self {
        Self { bytes, bare_return: !bytes.contains(&b'\n'), position: 0, after_empty: true }
    }
}

impl Iterator for Separators<'_> {
    type Item = MailSeparator;

    fn next(&mut self) -> Option<MailSeparator> {
        while let Some(line) = line_at(self.bytes, self.position, self.bare_return) {
            let is_certain = std::mem::replace(&mut self.after_empty, line.content.is_empty());
            self.position = line.next;
            if !is_separator(line.content) {
                continue;
            }
            let first_line = line_at(self.bytes, line.next, self.bare_return);
            // "From" starts sentences too.
            let is_field =
                |content: &[u8]| field_name(content).is_some() || content.starts_with(b">From ");
            if first_line.is_some_and(|first_line| is_field(first_line.content)) {
                return Some(MailSeparator { start: line.start, message: line.next, is_certain });
            }
        }
        None
    }
}
