//! ar: `ar(5)` of BSD, with the long names of GNU and BSD. Debian packages are such archives.
//!
//! Import libraries have tens of thousands of members, more than the limit of files. So only the first object
//! files are examined as files, and the others only if a format of this crate recognizes them. The rules are evaluated on
//! the archive as a whole, which contains all object files. For rules on the
//! start of a file, a file that starts like an object file has no other type. If other programs open it as another type,
//! that type is a format of this crate.

use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

const MAGIC: &[u8] = b"!<arch>\n";

/// Length of a header, bytes.
const HEADER: usize = 60;

/// The bytes at the end of a header.
const HEADER_END: &[u8] = b"`\n";

/// Maximum number of object files that are examined as files.
const MAX_OBJECT_FILES: usize = 1000;

/// Starts of object files: import objects and COFF of common machines, LLVM. Of ELF and Mach-O, the type is compared too.
const OBJECT_FILES: [&[u8]; 6] =
    [b"\0\0\xff\xff", b"\x4c\x01", b"\x64\x86", b"\x64\xaa", b"\xc4\x01", b"BC\xc0\xde"];

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut position = MAGIC.len();
    let mut long_names: &[u8] = &[];
    let mut object_files = 0;
    while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
        let Some(header) = ArHeader::parse(rest) else {
            // A line break may fill the archive to an even length.
            if rest != b"\n" {
                unpacker.note(NoteKind::Unreadable, "an ar header is damaged");
            }
            return Ok(());
        };
        if header.is_ambiguous {
            unpacker.note(NoteKind::Inconsistent, "a number in an ar header is invalid");
        }
        let content = rest.get(HEADER..).unwrap_or_default();
        let (content, is_truncated) = match content.get(..header.size) {
            Some(content) => (content, false),
            None => (content, true),
        };
        if header.name == b"//" {
            long_names = content;
        }
        let (name, content) = header.long_name(content, long_names);
        let is_object_file = is_object_file(content);
        object_files += usize::from(is_object_file);
        let is_examined =
            !is_object_file || object_files <= MAX_OBJECT_FILES || unpacker.is_container(content);
        if !content.is_empty() && is_examined {
            unpacker.slice(EntryName::file(name), content)?;
        }
        if is_truncated {
            unpacker.note(NoteKind::Unreadable, "a file in an ar archive is truncated");
            return Ok(());
        }
        position = next_position(bytes, position + HEADER + header.size, unpacker);
    }
    Ok(())
}

/// Returns the offset of the next header, after the content that ends at `end`. A content of odd length is padded, but
/// some programs write and read archives without padding.
fn next_position(bytes: &[u8], end: usize, unpacker: &mut Unpacker<'_>) -> usize {
    let padded = end.next_multiple_of(2);
    let is_header =
        |start: usize| bytes.get(start..).is_some_and(|rest| ArHeader::parse(rest).is_some());
    if padded != end && !is_header(padded) && is_header(end) {
        unpacker.note(NoteKind::Inconsistent, "a file in an ar archive is not padded");
        return end;
    }
    padded
}

/// Returns whether a member is an object file. Programs start in other ways, or state another type.
fn is_object_file(content: &[u8]) -> bool {
    match content {
        // `e_type` is ET_REL, in either byte order. elf(5).
        [0x7f, b'E', b'L', b'F', ..] => {
            matches!(content.get(16..18), Some([1, 0] | [0, 1]))
        }
        // `filetype` is MH_OBJECT.
        [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => content.get(12..16) == Some(&[1, 0, 0, 0]),
        _ => OBJECT_FILES.iter().any(|start| content.starts_with(start)),
    }
}

struct ArHeader<'a> {
    /// Without spaces at its end.
    name: &'a [u8],
    /// Bytes.
    size: usize,
    /// Whether the size contains other characters than digits.
    is_ambiguous: bool,
}

impl<'a> ArHeader<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let (name, rest) = header.split_at_checked(16)?;
        let size = rest.get(32..42)?.trim_ascii();
        if rest.get(42..)? != HEADER_END {
            return None;
        }
        let number = leading_decimal(size)?;
        let is_ambiguous = !size.iter().all(u8::is_ascii_digit);
        Some(Self { name: name.trim_ascii_end(), size: number, is_ambiguous })
    }

    /// Returns the name, and the content without it.
    fn long_name<'c>(&self, content: &'c [u8], long_names: &'c [u8]) -> (&'c [u8], &'c [u8])
    where
        'a: 'c,
    {
        // BSD: the name is the start of the content.
        let bsd = self.name.strip_prefix(b"#1/").and_then(leading_decimal);
        if let Some((name, content)) = bsd.and_then(|length| content.split_at_checked(length)) {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            return (name.get(..end).unwrap_or(name), content);
        }
        // GNU: the name is an offset in the list of long names.
        let gnu = self.name.strip_prefix(b"/").and_then(leading_decimal);
        if let Some(names) = gnu.and_then(|offset| long_names.get(offset..)) {
            let name = names.split(|byte| b"\n\0".contains(byte)).next().unwrap_or_default();
            return (name.strip_suffix(b"/").unwrap_or(name), content);
        }
        let short = self.name.strip_suffix(b"/").filter(|name| !name.is_empty());
        (short.unwrap_or(self.name), content)
    }
}

/// Parses the decimal digits at the start of a field. `None` if there are none.
fn leading_decimal(field: &[u8]) -> Option<usize> {
    let mut digits = field.iter().take_while(|byte| byte.is_ascii_digit()).peekable();
    digits.peek()?;
    digits.try_fold(0_usize, |number, digit| {
        number.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
    })
}
