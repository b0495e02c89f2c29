//! Files that are a sequence of compressed members: members of gzip, streams of bzip2 and xz, frames of Zstandard and
//! LZ4.

use std::io::{self, Read};

use crate::unpack::fields::u32_at;
use crate::unpack::{
    name::EntryName,
    unpacker::{Completeness, MAX_WINDOW, Unpacked, Unpacker},
};

/// [`MAX_WINDOW`] as decoders of LZMA take it.
#[expect(clippy::cast_possible_truncation, reason = "the window is 64 MiB")]
pub(super) const MAX_DICTIONARY: u32 = MAX_WINDOW as u32;

/// Decoder of one member.
pub(super) trait Member<'a>: Sized {
    /// Maximum number of members in one file. Each one needs a decoder, which costs up to 10 µs however short the member
    /// is. Files of parallel compressors have a member for each 64 KiB or more.
    const MAX_MEMBERS: u32 = 65_536;

    /// Returns the decoder of the member at the start of `input`; `None` if there is no member.
    fn start(input: &'a [u8]) -> Option<Self>;

    /// Decodes into `output`, which is not empty. Returns the number of decoded bytes, 0 at the end of the member.
    ///
    /// # Errors
    /// If the member is damaged. All bytes before are returned by earlier calls.
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize>;

    /// Returns the input after the member, and an error that does not affect the content, such as a wrong checksum.
    fn finish(self) -> (&'a [u8], io::Result<()>);
}

/// Decodes consecutive members to one stream. Padding with zeros between members, and bytes after the last member that
/// are not a member, are ignored.
pub(super) struct Members<'a, M> {
    current: Option<M>,
    /// The input that the next member starts at.
    next: &'a [u8],
    /// Number of members that were started.
    started: u32,
    limit: u32,
    /// The first error that does not affect the content, reported at the end.
    defect: io::Result<()>,
}

impl<'a, M: Member<'a>> Members<'a, M> {
    fn new(input: &'a [u8], limit: u32) -> Self {
        Self { current: None, next: input, started: 0, limit, defect: Ok(()) }
    }

    /// Starts the next member. Returns whether there is one.
    fn start_next(&mut self) -> io::Result<bool> {
        let zeros = if self.started == 0 { 0 } else { leading_zeros(self.next) };
        let input = self.next.get(zeros..).unwrap_or_default();
        if self.started >= self.limit {
            return Ok(false);
        }
        let Some(member) = M::start(input) else { return Ok(false) };
        self.current = Some(member);
        self.next = &[];
        self.started += 1;
        if self.started > M::MAX_MEMBERS {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many compressed members"));
        }
        Ok(true)
    }

    fn finish_current(&mut self) {
        if let Some(member) = self.current.take() {
            let (rest, result) = member.finish();
            self.next = rest;
            if self.defect.is_ok() {
                self.defect = result;
            }
        }
    }
}

impl<'a, M: Member<'a>> Read for Members<'a, M> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(member) = &mut self.current {
                let length = member.read(output)?;
                if length > 0 {
                    return Ok(length);
                }
                self.finish_current();
            } else if !self.start_next()? {
                std::mem::replace(&mut self.defect, Ok(()))?;
                return Ok(0);
            }
        }
    }
}

/// Unpacks a file of one or more members.
///
/// All members together are one file. Some programs read only the first member of several (browsers decoding HTTP
/// content, PHP's `gzdecode`, Java's commons-compress by default), so the first one is evaluated alone as well. Its
/// notes are dropped: the members of a parallel compressor are pieces of a file.
pub(super) fn unpack<'a, M: Member<'a>>(
    bytes: &'a [u8],
    name: EntryName,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    let mut members = Members::<M>::new(bytes, u32::MAX);
    if unpacker.decode(name, &mut members)? == Completeness::Complete {
        let used = bytes.len() - members.next.len();
        unpacker.set_decoded(bytes.get(..used).unwrap_or_default());
    }
    if members.started > 1 {
        let first = Members::<M>::new(bytes, 1);
        let name = EntryName::label("first member");
        unpacker.alternative(|unpacker| unpacker.decode(name, first).map(|_decoded| ()))?;
    }
    Ok(())
}

/// Returns the name of a stream's content where the format has no name.
pub(super) fn unnamed() -> EntryName {
    EntryName::label("content")
}

/// Creates the error of input that ends before a member is complete.
pub(super) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the compressed data is truncated")
}

/// Creates the error of a damaged member.
pub(super) fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Creates the error of a member that needs a larger window than the evaluator allows.
pub(super) fn window_too_large() -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, "the compression needs a window above 64 MiB")
}

fn leading_zeros(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// Returns the input after the skippable frames at its start (Zstandard: RFC 8878, section 3.1.2; LZ4 has the same).
pub(super) fn after_skippable_frames(mut input: &[u8]) -> &[u8] {
    while let (Some(0x184D_2A50..=0x184D_2A5F), Some(length)) = (u32_at(input, 0), u32_at(input, 4))
    {
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8);
        input = input.get(end..).unwrap_or_default();
    }
    input
}
