//! Unpacks archives, documents, mail and disk images, within limits.
//!
//! The media file and everything inside it are *objects*. [`unpack`] passes each object to a [`Visitor`], the container
//! before its contents. Contents that cannot be examined cause a [`Note`] and do not end the walk, so that a finding in
//! the rest still counts.
//!
//! A file of `stream`, `archive`, `document` or `disk` implements one format: a function `matches`, which recognizes
//! the format, and a function `unpack`, which passes the contents to the [`Unpacker`]. The table is in `formats.rs`.

mod archive;
mod bounded_read;
mod budget;
mod content;
mod disk;
mod document;
mod embedded;
mod fields;
mod formats;
mod kind;
mod name;
mod notes;
mod object;
mod settings;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod unpacker;

pub(crate) use kind::Kind;
#[cfg(test)]
pub(crate) use name::EntryName;
pub(crate) use object::{MediaObject, Visitor};
pub use settings::UnpackSettings;
pub(crate) use unpacker::{MAX_WINDOW, Unpacker};

use crate::report::Note;

/// Version of the unpacking code, part of the digest of rules: changed when the same media may give other objects, or
/// objects other variables with the structure of text.
pub(crate) const VERSION: u32 = 3;

/// Creates what unpacking shares between media files, so that children inherit it.
pub(crate) fn warm_up() {
    formats::warm_up();
}

/// Passes `media` and, if enabled, everything inside it to `visitor`. Returns the notes, at most one of each kind.
pub(crate) fn unpack(
    media: &[u8],
    settings: &UnpackSettings,
    visitor: &mut dyn Visitor,
) -> Vec<Note> {
    let mut unpacker = Unpacker::new(settings, &formats::SELECTION, visitor);
    unpacker.media(media);
    unpacker.into_notes()
}
