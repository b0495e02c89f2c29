//! Recognition of mail.

use super::{
    lines::{field_name, is_blank, line_at},
    mailbox::{is_separator, without_separator},
};

/// Maximum length of the header that is read, bytes.
const MAX_START: usize = 1 << 20;

/// Number of lines after which a line that belongs to no field ends the search.
const MAX_LINES: usize = 400;

/// Fields that occur in mail, and hardly at the start of other texts.
const MAIL_FIELDS: [&str; 16] = [
    "message-id",
    "mime-version",
    "received",
    "return-path",
    "delivered-to",
    "content-transfer-encoding",
    "content-disposition",
    "dkim-signature",
    "reply-to",
    "in-reply-to",
    "references",
    "x-mailer",
    "x-mozilla-status",
    "x-unsent",
    "thread-index",
    "x-originating-ip",
];

/// Fields that occur in mail, and in other texts too.
const COMMON_FIELDS: [&str; 8] =
    ["from", "to", "cc", "bcc", "subject", "date", "sender", "content-type"];

/// Returns the file without a byte order mark and empty lines at its start, which mail programs ignore.
pub(super) fn without_prefix(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = bytes.get(..MAX_START).unwrap_or(bytes);
    // Spaces at the start of the first line are kept: no field starts with them.
    let blank = start.len().saturating_sub(start.trim_ascii_start().len());
    let line = start.get(..blank).and_then(|blank| blank.iter().rposition(|byte| is_break(*byte)));
    line.and_then(|line| bytes.get(line.saturating_add(1)..)).unwrap_or(bytes)
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Returns whether a file starts like a message or a mailbox.
pub(super) fn is_mail(bytes: &[u8]) -> bool {
    let bytes = without_prefix(bytes);
    let bytes = bytes.get(..MAX_START).unwrap_or(bytes);
    // Most files are rejected by their first line.
    let bare_return = !bytes.contains(&b'\n');
    let Some(first) = line_at(bytes, 0, bare_return) else { return false };
    let is_mailbox = is_separator(first.content);
    if !is_mailbox && !is_in_header(first.content) {
        return false;
    }
    let mut fields = StartFields::default();
    let mut start = bytes.len().saturating_sub(without_separator(bytes).len());
    let mut lines = 0_usize;
    while let Some(line) = line_at(bytes, start, bare_return) {
        start = line.next;
        if line.content.is_empty() || (lines >= MAX_LINES && !is_in_header(line.content)) {
            break;
        }
        lines = lines.saturating_add(1);
        fields.add(line.content);
    }
    // "From" starts sentences too.
    fields.are_of_mail() || (is_mailbox && fields.count > 0 && has_time(first.content))
}

/// Returns whether a line starts or continues a field, or has a colon and no name. Mail programs ignore the last kind, and
/// continuations of no field.
fn is_in_header(line: &[u8]) -> bool {
    let is_ignored = line.first().is_some_and(|first| is_blank(*first) || *first == b':');
    is_ignored || field_name(line).is_some()
}

/// Returns whether a line contains hours and minutes.
fn has_time(line: &[u8]) -> bool {
    line.windows(5).any(|window| match window {
        [h, hh, b':', m, mm] => [h, hh, m, mm].iter().all(|digit| digit.is_ascii_digit()),
        _ => false,
    })
}

/// The fields at the start of a file.
#[derive(Default, Debug)]
struct StartFields {
    count: u32,
    /// Sets of indexes into the lists.
    mail: u32,
    common: u32,
    /// Whether an address follows `From`, `To` and similar fields.
    has_address: bool,
    /// Whether the type is one of parts or messages.
    has_messages: bool,
    /// Whether the current field is `Content-Type`.
    in_content_type: bool,
}

impl StartFields {
    fn add(&mut self, line: &[u8]) {
        let is_continuation = line.first().copied().is_some_and(is_blank);
        let name = field_name(line).filter(|_| !is_continuation);
        if let Some(name) = name {
            let position = |list: &[&str]| {
                list.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            };
            let mail = position(&MAIL_FIELDS);
            let common = position(&COMMON_FIELDS);
            self.count = self.count.saturating_add(1);
            self.mail |= mail.map_or(0, |index| 1 << index);
            self.common |= common.map_or(0, |index| 1 << index);
            self.has_address |= common.is_some_and(|index| index < 4) && line.contains(&b'@');
            self.in_content_type = name.eq_ignore_ascii_case(b"content-type");
        }
        if self.in_content_type {
            let words: [&[u8]; 3] = [b"multipart/", b"boundary", b"message/"];
            self.has_messages |= words.iter().any(|word| contains_word(line, word));
        }
    }

    /// Returns whether only mail has these fields: parts, two fields with one that is specific to mail, or three that
    /// other texts may have, with an address.
    fn are_of_mail(&self) -> bool {
        let (mail, common) = (self.mail.count_ones(), self.common.count_ones());
        let is_encoded = self.mail & (1 << 5) != 0;
        self.has_messages
            || is_encoded
            || (mail >= 1 && mail.saturating_add(common) >= 2)
            || (self.has_address && common >= 2)
            || common >= 3
    }
}

/// Returns whether a line contains a word in any case.
fn contains_word(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}
