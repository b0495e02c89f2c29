//! What a file is, told by its bytes, in the names of `file --mime-type`, and what of it the operator allows.
//!
//! The rules are libmagic's own (file 5.46), compiled into the binary by `magic-db` and run by `pure-magic`, which is
//! safe Rust. The bytes are hostile and are looked at inside the server, so an examination is bounded in three ways: it
//! sees the first [`HEAD`] and the last [`TAIL`] bytes of a file, it may read [`WORK`] of them in all however the rules
//! are led around, and a panic in the rule engine ends with `application/octet-stream`. A few corrections, each with its
//! reason, bring the engine to what `file` prints.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str;
use std::sync::Arc;

use pure_magic::readers::DataRead;
use pure_magic::{Magic, MagicDb};
use serde::de::IgnoredAny;

/// Bytes looked at from a file's beginning. Office documents keep what tells them apart behind their first entries;
/// disk images, the farthest of what people send, at 32 KiB.
const HEAD: usize = 1 << 20;
/// Bytes looked at from a file's end: some rules count from there, Apple disk images' from the last 512.
const TAIL: usize = 4 << 10;
/// As much of a text is looked at by the text rules, as in libmagic. The engine builds a tree of what begins like
/// JSON, up to a hundred times its size, so this is what bounds its memory.
const TEXT: usize = 64 << 10;
/// What one examination may cost: a byte given to a rule costs one, and each reading [`READ`] besides. Ten times what
/// the costliest ordinary file took. Nested archives and Mach-O headers that point at one another make the engine run
/// all its rules again at each step, without end for practical purposes.
const WORK: u64 = 256 << 20;
/// The cost of a reading, however short: about what a rule costs that reads four bytes.
const READ: u64 = 256;

/// What nothing is known of.
const UNKNOWN: &str = "application/octet-stream";
/// What only is known to be text.
const PLAIN: &str = "text/plain";

/// Names that the rules give and `file` does not print, with what it prints. The first two it gives other names; the
/// others are rules of `magic-db`'s own, after which an allowed `image/png` would not let an animated one through.
const PRINTED: [(&str, &str); 7] = [
    ("text/javascript", "application/javascript"),
    ("image/x-bitmap", PLAIN),
    ("image/apng", "image/png"),
    ("application/x-rust-metadata", UNKNOWN),
    ("text/x-rust", PLAIN),
    ("text/x-raku", PLAIN),
    ("text/vnd.typst", PLAIN),
];

/// Names that changed between libmagic's releases, the older first. An operator whose `file` is older writes the older
/// name; a block list with it must not silently stop blocking.
const RENAMED: [(&str, &str); 10] = [
    ("application/x-dosexec", "application/vnd.microsoft.portable-executable"),
    ("application/x-rar", "application/vnd.rar"),
    ("application/x-gzip", "application/gzip"),
    ("application/cdfv2", "application/x-ole-storage"),
    ("text/javascript", "application/javascript"),
    ("text/x-python", "text/x-script.python"),
    ("image/x-ms-bmp", "image/bmp"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("image/x-pcx", "image/vnd.zbrush.pcx"),
    ("font/ttf", "font/sfnt"),
];

/// A media type as `file --mime-type` names it, e.g. `image/png`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that `file` prints for what the rules call `name`.
    fn printed(name: &str) -> Self {
        // One of libmagic's rules ends in a space; a charset would come after a semicolon.
        let name = essence(name);
        let name = PRINTED.iter().find(|(rule, _)| *rule == name).map_or(name, |(_, file)| file);
        Self(if name.split('/').filter(|part| !part.is_empty()).count() == 2 {
            name.into()
        } else {
            UNKNOWN.into()
        })
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The type without its parameters.
fn essence(name: &str) -> &str {
    name.split(';').next().unwrap_or_default().trim()
}

/// The rules of file types, loaded once (about 30 ms and 15 MiB).
pub struct Detector {
    db: MagicDb,
    names: HashSet<String>,
}

/// The rules compiled into this binary could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the built-in rules of file types cannot be loaded: {0}")]
pub struct LoadError(String);

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Detector {
    /// Loads the rules.
    pub fn new() -> Result<Self, LoadError> {
        let db = magic_db::load().map_err(|e| LoadError(e.to_string()))?;
        let names = names(&db).map_err(|e| LoadError(e.to_string()))?;
        Ok(Self { db, names })
    }

    /// What the file is. Reads by offset: the file's own position stays where it is. Blocks on the disk.
    pub fn detect(&self, file: &File) -> io::Result<MediaType> {
        let size = file.metadata()?.len();
        let head = read(file, 0, HEAD)?;
        let tail = read(file, (head.len() as u64).max(size.saturating_sub(TAIL as u64)), TAIL)?;
        Ok(self.examine(&Window::new(&head, &tail, size), |at, len| read(file, at, len)))
    }

    /// What a file of these bytes is.
    #[must_use]
    pub fn detect_bytes(&self, bytes: &[u8]) -> MediaType {
        let head = bytes.get(..HEAD).unwrap_or(bytes);
        let tail = bytes.get(head.len().max(bytes.len().saturating_sub(TAIL))..);
        let window = Window::new(head, tail.unwrap_or_default(), bytes.len() as u64);
        self.examine(&window, |at, len| {
            let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            Ok(from.get(..len).unwrap_or(from).to_vec())
        })
    }

    /// Whether some file can have this type, so that naming it in a list means something.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let name = essence(name).to_ascii_lowercase();
        self.names.contains(&name) || RENAMED.iter().any(|(old, _)| *old == name)
    }

    fn examine(
        &self,
        window: &Window<'_>,
        read: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> MediaType {
        if window.head.is_empty() {
            return MediaType(UNKNOWN.into());
        }
        // A document cut in the middle of a character would not be text any more.
        let window = Window { head: whole_characters(window.head), ..*window };
        if let Some(name) = large_json(&window) {
            return MediaType(name.into());
        }

        let mut found = self.run(window);
        // libmagic reads text of other encodings as UTF-8; the engine reads UTF-8 alone. What it found by bytes stays.
        if found.as_ref().is_none_or(|(_, default)| *default) {
            found = match decoded(window.head) {
                Some(Cow::Borrowed(text)) if text.len() == window.head.len() => found,
                Some(text) => self
                    .run(Window::new(text.as_bytes(), &[], text.len() as u64))
                    .or(Some((PLAIN.into(), true))),
                None => None,
            };
        }
        let name = found.map_or(Cow::Borrowed(UNKNOWN), |(name, _)| Cow::Owned(name));
        corrected(&name, &window, read)
    }

    /// The rules' answer, and whether it is what they answer when none of them matches; nothing where they could not
    /// come to one.
    fn run(&self, window: Window<'_>) -> Option<(String, bool)> {
        let answer = |magic: &Magic<'_>| (magic.mime_type().to_owned(), magic.is_default());
        // A panic in the engine must not take the request along. It has no unsafe code, and it borrows the rules, in
        // which nothing but regular expressions' caches changes: those stay sound when left in the middle.
        catch_unwind(AssertUnwindSafe(|| {
            let first = self.db.first_magic(&mut window.clone(), None).ok()?;
            // Since 5.45 `file` wants three columns of a CSV file: with two, prose with a comma in each line is one.
            // The engine asks this first, so the rules have still to be asked.
            if first.mime_type() == "text/csv" && columns(window.head) < 3 {
                let all = self.db.all_magics(&mut window.clone()).ok()?;
                return all.iter().find(|magic| magic.mime_type() != "text/csv").map(answer);
            }
            Some(answer(&first))
        }))
        .unwrap_or_default()
    }
}

/// All names the rules can give. The engine does not list them but can be serialized, so they are taken from there.
fn names(db: &MagicDb) -> serde_json::Result<HashSet<String>> {
    let rules = serde_json::to_string(db)?;
    let given = rules.split(r#""mimetype":""#).skip(1).filter_map(|rest| rest.split('"').next());
    // What the engine knows without a rule.
    let built_in = [UNKNOWN, PLAIN, "application/json", "application/x-ndjson", "text/csv"];
    Ok(given
        .chain(built_in)
        .chain(["application/x-tar", "application/x-pie-executable", "font/sfnt"])
        .map(|name| MediaType::printed(name).as_str().to_ascii_lowercase())
        .collect())
}

/// Up to `len` bytes from `at`; fewer at the file's end.
fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What the engine gets wrong of the types that people send or that harm.
fn corrected(
    name: &str,
    window: &Window<'_>,
    read: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
) -> MediaType {
    let head = window.head;
    MediaType::printed(match name {
        // A Mach-O file for several machines leads the engine around until it gives up. A Java class has the same
        // first bytes, and its version, above 43, where the other counts the machines.
        UNKNOWN if head.starts_with(b"\xca\xfe\xba\xbe") && be32(head, 4) < 43 => {
            "application/x-mach-binary"
        }
        // The rule has its name behind a condition that the usual version does not meet.
        UNKNOWN if head.starts_with(b"\0asm") => "application/wasm",
        // The rule wants a table's name where the engine does not look for it.
        UNKNOWN if head.starts_with(b"\0\x01\0\0\0") && head.get(12..16).is_some_and(is_tag) => {
            "font/sfnt"
        }
        PLAIN if first_line(head).is_some_and(|line| interpreter(line) == b"perl") => "text/x-perl",
        // libmagic tells programs from libraries in code, not by rules.
        "application/x-sharedlib" if is_pie(head, read).unwrap_or(false) => {
            "application/x-pie-executable"
        }
        name => name,
    })
}

/// Whether the name of a font's first table stands here.
fn is_tag(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b' '))
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()
}

/// The program's name in a script's first line.
fn interpreter(line: &[u8]) -> &[u8] {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut program = || words.next()?.rsplit(|b| *b == b'/').next();
    match program() {
        Some(b"env") => program(),
        other => other,
    }
    .unwrap_or_default()
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

/// Whether an ELF object is a program that may be loaded anywhere: its dynamic section says so. Nothing where the
/// headers cannot be read.
fn is_pie(head: &[u8], read: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> Option<bool> {
    const PT_DYNAMIC: u64 = 2;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_PIE: u64 = 0x0800_0000;
    // libmagic looks at no more; the dynamic section of a large program has some 50 entries.
    const HEADERS: usize = 2048;
    const SECTION: usize = 64 << 10;

    let wide = *head.get(4)? == 2;
    let little = *head.get(5)? == 1;
    let number = |bytes: &[u8], at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let word = if wide { 8 } else { 4 };
    let (table, sizes) = if wide { (32, 54) } else { (28, 42) };
    let (offset_at, len_at) = if wide { (8, 32) } else { (4, 16) };

    let headers = number(head, table, word)?;
    let size = usize::try_from(number(head, sizes, 2)?).ok()?;
    let count = usize::try_from(number(head, sizes + 2, 2)?).ok()?.min(HEADERS);
    let headers = read(headers, size.checked_mul(count)?.min(HEADERS * 56)).ok()?;
    let dynamic = headers
        .chunks_exact(size.max(1))
        .find(|header| number(header, 0, 4) == Some(PT_DYNAMIC))?;
    let len = usize::try_from(number(dynamic, len_at, word)?).ok()?.min(SECTION);
    let entries = read(number(dynamic, offset_at, word)?, len).ok()?;
    Some(entries.chunks_exact(word * 2).any(|entry| {
        number(entry, 0, word) == Some(DT_FLAGS_1)
            && number(entry, word, word).is_some_and(|flags| flags & DF_1_PIE != 0)
    }))
}

/// JSON larger than the engine is given of a text (it would need the end of it): whether it is JSON as far as it is
/// known, read without building anything.
fn large_json(window: &Window<'_>) -> Option<&'static str> {
    if window.head.len() <= TEXT || !begins_json(window.head) {
        return None;
    }
    let mut values =
        serde_json::Deserializer::from_slice(window.head).into_iter::<IgnoredAny>().take(2);
    let cut = window.size > window.head.len() as u64;
    match (values.next()?, values.next()) {
        (Err(e), _) if !(cut && e.is_eof()) => None,
        (Ok(_), Some(Ok(_))) => Some("application/x-ndjson"),
        _ => Some("application/json"),
    }
}

fn begins_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// How many columns the first line has. A comma within quotes separates none.
fn columns(head: &[u8]) -> usize {
    let mut quoted = false;
    let line = head.iter().take_while(|b| **b != b'\n');
    1 + line
        .filter(|b| {
            quoted ^= **b == b'"';
            **b == b',' && !quoted
        })
        .count()
}

/// Without the part of a character at the end, if that is all that is wrong with it as UTF-8.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => {
            bytes.get(..e.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// The beginning of a text as UTF-8 without a byte order mark, by libmagic's ideas of what a text is: one of the Unicode
/// encodings, or bytes of which none is a control character that texts do not have. Whatever those mean, each becomes
/// one character: no rule looks for letters beyond ASCII.
fn decoded(head: &[u8]) -> Option<Cow<'_, str>> {
    let zeros = head.iter().rev().take_while(|b| **b == 0).count();
    let cut = head.get(..TEXT.min(head.len())).unwrap_or(head);
    let wide = |parse: fn(&[u8]) -> Option<char>, rest: &[u8]| {
        let text = rest.chunks_exact(4).map(parse).collect::<Option<String>>()?;
        text.chars().all(is_text).then_some(Cow::Owned(text))
    };
    let pairs = |parse: fn([u8; 2]) -> u16, rest: &[u8]| {
        let units = rest.as_chunks().0.iter().map(|pair| parse(*pair));
        let mut chars = char::decode_utf16(units).collect::<Vec<_>>();
        // The cut may have split the last character.
        if chars.last().is_some_and(Result::is_err) && rest.len() + 4 >= TEXT {
            chars.pop();
        }
        let text = chars.into_iter().collect::<Result<String, _>>().ok()?;
        text.chars().all(is_text).then_some(Cow::Owned(text))
    };
    if let Some(rest) = cut.strip_prefix(b"\xff\xfe\0\0") {
        return wide(|b| char::from_u32(u32::from_le_bytes(*b.first_chunk()?)), rest);
    }
    if let Some(rest) = cut.strip_prefix(b"\0\0\xfe\xff") {
        return wide(|b| char::from_u32(u32::from_be_bytes(*b.first_chunk()?)), rest);
    }
    if let Some(text) = cut
        .strip_prefix(b"\xff\xfe")
        .and_then(|rest| pairs(u16::from_le_bytes, rest))
        .or_else(|| cut.strip_prefix(b"\xfe\xff").and_then(|rest| pairs(u16::from_be_bytes, rest)))
    {
        return Some(text);
    }
    // A tape archive's last block and the like: libmagic does not count zeros at the end.
    let cut = cut.get(..head.len().saturating_sub(zeros)).unwrap_or(cut);
    let bare = cut.strip_prefix(b"\xef\xbb\xbf").unwrap_or(cut);
    if cut.is_empty() || !bare.iter().all(|b| is_text(char::from(*b))) {
        return None;
    }
    Some(match str::from_utf8(whole_characters(bare)) {
        // Nothing was changed, so the rules have seen it.
        Ok(_) if bare.len() == cut.len() && zeros == 0 => {
            Cow::Borrowed(str::from_utf8(whole_characters(head)).unwrap_or_default())
        }
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bare.iter().map(|b| char::from(*b)).collect()),
    })
}

/// libmagic's table of what bytes occur in texts: bell to carriage return, escape, and all that is printed somewhere.
fn is_text(c: char) -> bool {
    matches!(u32::from(c), 7..=13 | 27 | 32..=126 | 128..=0xfffd | 0x1_0000..)
}

/// What the rules see of a file: its beginning and its end, for as long as [`WORK`] lasts.
#[derive(Clone, Copy)]
struct Window<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    size: u64,
    at: u64,
    work: u64,
}

impl<'a> Window<'a> {
    fn new(head: &'a [u8], tail: &'a [u8], size: u64) -> Self {
        Self { head, tail, size, at: 0, work: WORK }
    }

    /// What there is from `at` on. Nothing is between the beginning and the end, as if the file ended there.
    fn from(&self, at: u64) -> &'a [u8] {
        let tail_at = self.size.saturating_sub(self.tail.len() as u64);
        let (part, at) = if at < self.head.len() as u64 {
            (self.head, at)
        } else {
            (self.tail, at.checked_sub(tail_at).unwrap_or(u64::MAX))
        };
        usize::try_from(at).ok().and_then(|at| part.get(at..)).unwrap_or_default()
    }

    fn take(&mut self, at: u64, len: u64) -> &'a [u8] {
        let rest = self.from(at);
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        self.at = at.saturating_add(taken.len() as u64);
        let cost = taken.len() as u64 + READ;
        self.work = self.work.checked_sub(cost).unwrap_or_else(|| {
            // Not an error: the engine takes one for the data's end and goes on. This unwinds to `Detector::run`
            // without a message.
            resume_unwind(Box::new("out of work") as Box<dyn Any + Send>)
        });
        taken
    }

    /// Up to `limit` bytes from here, to the first for which `end` holds, with `extra` bytes of it.
    fn until(&mut self, limit: u64, extra: usize, end: impl Fn(&[u8]) -> bool, step: usize) -> &'a [u8] {
        let rest = self.from(self.at);
        let rest = usize::try_from(limit).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        let len = rest.chunks(step).position(end).map_or(rest.len(), |n| n * step + extra);
        self.take(self.at, (len - len % step) as u64)
    }
}

impl DataRead for Window<'_> {
    fn stream_position(&self) -> u64 {
        self.at
    }

    fn read_range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        Ok(self.take(range.start, range.end.saturating_sub(range.start)))
    }

    fn read_until_any_delim_or_limit(&mut self, delims: &[u8], limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 1, |b| b.iter().any(|b| delims.contains(b)), 1))
    }

    fn read_until_or_limit(&mut self, byte: u8, limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 1, |b| b.contains(&byte), 1))
    }

    fn read_while_or_limit<F>(&mut self, f: F, limit: u64) -> io::Result<&[u8]>
    where
        F: Fn(u8) -> bool,
    {
        Ok(self.until(limit, 0, |b| !b.iter().all(|b| f(*b)), 1))
    }

    fn read_until_utf16_or_limit(&mut self, char: &[u8; 2], limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 2, |b| b == char, 2))
    }

    fn data_size(&self) -> u64 {
        self.size
    }

    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.at = self.offset_from_start(pos);
        Ok(self.at)
    }
}

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MimeRules {
    /// Everything.
    #[default]
    All,
    /// These types alone.
    Only(HashSet<String>),
    /// Every type but these.
    AllBut(HashSet<String>),
}

impl MimeRules {
    /// Allows these types alone.
    pub fn only<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Only(normal(names))
    }

    /// Allows every type but these.
    pub fn all_but<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::AllBut(normal(names))
    }

    /// The types that are listed, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let list = match self {
            Self::All => None,
            Self::Only(list) | Self::AllBut(list) => Some(list),
        };
        list.into_iter().flatten().map(String::as_str)
    }

    /// Whether a file of this type may pass. Case and parameters do not count, and a type is meant by its older names as
    /// well.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let name = essence(name).to_ascii_lowercase();
        let in_list = |list: &HashSet<String>| {
            list.contains(&name)
                || RENAMED.iter().any(|(old, new)| *new == name && list.contains(*old))
        };
        match self {
            Self::All => true,
            Self::Only(list) => in_list(list),
            Self::AllBut(list) => !in_list(list),
        }
    }
}

fn normal<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> HashSet<String> {
    names.into_iter().map(|name| essence(name.as_ref()).to_ascii_lowercase()).collect()
}
