//! Mail: messages (RFC 5322, RFC 2045 to 2049), mailboxes (RFC 4155) and web archives (RFC 2557).
//!
//! Mail programs differ in what they accept, so the structure is parsed here, leniently and in linear time: the library
//! `mail-parser` needs quadratic time for boundaries that do not occur, rejects base64 with other characters in it, and
//! omits text outside of the parts. The library decodes the names of files.

mod header;
mod lines;
mod mailbox;
mod mime;
mod name;
mod part;
mod recognize;
mod transfer;
mod uuencode;

use crate::unpack::unpacker::{Unpacked, Unpacker};

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    recognize::is_mail(bytes)
}

/// Passes the bodies and attachments of a message, or the messages of a mailbox.
pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let bytes = recognize::without_prefix(bytes);
    if mailbox::has_several_messages(bytes) {
        mailbox::unpack(bytes, unpacker)
    } else {
        mime::message(mailbox::without_separator(bytes), unpacker)
    }
}
