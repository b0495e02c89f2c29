//! Scripts in a page.

use std::borrow::Cow;

use memchr::memchr_iter;

use crate::structure::markup::{AttributeReader, decode_references, tag_end};

/// Events after a click, a touch or a key.
const USER_EVENTS: [&[u8]; 24] = [
    b"auxclick",
    b"beforeinput",
    b"change",
    b"click",
    b"contextmenu",
    b"copy",
    b"cut",
    b"dblclick",
    b"dragstart",
    b"drop",
    b"input",
    b"keydown",
    b"keypress",
    b"keyup",
    b"mousedown",
    b"mouseup",
    b"paste",
    b"pointerdown",
    b"pointerup",
    b"reset",
    b"submit",
    b"touchcancel",
    b"touchend",
    b"touchstart",
];

/// Maximum number of scripts and handlers.
pub(super) const MAX_SCRIPTS: usize = 1_000_000;

/// Returns whether an event only happens after a click, a touch or a key. jQuery allows a name space behind a point.
pub(super) fn is_user_event(name: &[u8]) -> bool {
    let name = name.split(|byte| matches!(byte, b'.' | b' ')).next().unwrap_or_default();
    USER_EVENTS.binary_search(&name.to_ascii_lowercase().as_slice()).is_ok()
}

/// Returns the scripts of a page: the contents of elements, and the handlers of events that need no click.
pub(super) fn scripts(bytes: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let mut scripts = Vec::new();
    let mut position = 0;
    for start in memchr_iter(b'<', bytes) {
        if scripts.len() > MAX_SCRIPTS {
            break;
        }
        let Some(tag) = bytes.get(start + 1..).filter(|_| start >= position) else { continue };
        if !tag.first().is_some_and(u8::is_ascii_alphabetic) || !is_possible(tag) {
            continue;
        }
        let end = tag_end(tag);
        let (tag, rest) = tag.split_at(end);
        position = start + 1 + end;
        let name = tag.split(|byte| byte.is_ascii_whitespace() || *byte == b'/').next();
        let attributes = tag.get(name.map_or(0, <[u8]>::len)..).unwrap_or_default();
        scripts.extend(handlers(attributes));
        // A drawing may give the element a prefix.
        let is_script = name.is_some_and(|name| {
            let name = name.rsplit(|byte| *byte == b':').next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"script")
        });
        if is_script && is_code(attributes) {
            let code = rest.get(1..).unwrap_or_default();
            let length = script_end(code);
            position += 1 + length;
            scripts.push(code.get(..length).unwrap_or_default().into());
        }
    }
    scripts
}

/// Returns whether a tag is a script or may contain a handler. Comparisons in other text are skipped.
fn is_possible(tag: &[u8]) -> bool {
    let name = tag
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-'))
        .count();
    name < 64
        && tag
            .get(name)
            .is_some_and(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))
}

/// Returns the handlers of events that need no click.
fn handlers(attributes: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    AttributeReader(attributes).filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let event = name.strip_prefix(b"on")?;
        (!value.is_empty() && !is_user_event(event)).then(|| decode_references(value))
    })
}

/// Returns whether the content of a script element is code rather than data or a template.
fn is_code(attributes: &[u8]) -> bool {
    let kind = AttributeReader(attributes).find(|(name, _)| name.eq_ignore_ascii_case(b"type"));
    kind.is_none_or(|(_, kind)| {
        let kind = decode_references(kind).to_ascii_lowercase();
        let kind = kind.trim_ascii();
        kind.is_empty()
            || kind == b"module"
            || kind.windows(6).any(|window| window == b"script" || window == b"jscrip")
    })
}

/// Returns the length of a script.
fn script_end(code: &[u8]) -> usize {
    let is_end = |position: &usize| {
        let tag = code.get(position + 1..).and_then(|tag| tag.strip_prefix(b"/"));
        let tag = tag.map(|tag| {
            tag.get(
                tag.iter()
                    .position(|byte| *byte == b':')
                    .filter(|prefix| *prefix < 16)
                    .map_or(0, |prefix| prefix + 1)..,
            )
            .unwrap_or_default()
        });
        tag.and_then(<[u8]>::first_chunk::<6>)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"script"))
    };
    memchr_iter(b'<', code).find(is_end).unwrap_or(code.len())
}
