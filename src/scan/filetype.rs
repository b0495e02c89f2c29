//! What a file is, told by its bytes, in the names of `file --mime-type`, and what of it the
//! operator allows.
//!
//! The rules are libmagic's own (file 5.46), from `magic-db`, compiled into the binary by `build.rs` and
//! run by `pure-magic`, which is safe Rust. The bytes are hostile and are looked at inside the server, so
//! an examination is bounded in three ways: it sees the first `HEAD` and the last `TAIL` bytes
//! of a file, it may read `WORK` of them in all however the rules are led around, and a panic in
//! the rule engine ends with `application/octet-stream`. A few corrections, each with its reason,
//! bring the engine to what `file` prints.

mod mime_rules;
mod shelves;
mod window;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pure_magic::{Magic, MagicDb};
use serde::de::IgnoredAny;
use shelves::Shelves;
use window::Window;

pub use mime_rules::MimeRules;

/// Bytes looked at from a file's beginning. Office documents keep what tells them apart behind
/// their first entries; disk images, the farthest of what people send, at 32 KiB.
const HEAD: usize = 1 << 20;
/// Bytes looked at from a file's end: some rules count from there, so an archive is found behind
/// whatever was put before it.
const TAIL: usize = 4 << 10;
/// So much of a text is looked at, as in libmagic: the rules of texts search all they are given.
/// The engine also builds a tree of what begins like JSON, up to a hundred times its size, and this
/// is what bounds its memory.
const TEXT: usize = 64 << 10;
/// What one examination may cost: a byte given to a rule costs one, and each reading [`READ`]
/// besides. A rule may send the engine through all rules again at an offset that the file names: 3
/// KiB of Mach-O headers that point at one another took it seconds. The costliest ordinary files of
/// some four thousand took a third of this.
const WORK: u64 = 64 << 20;
/// The cost of a reading, however short: about what a rule costs that reads four bytes.
const READ: u64 = 256;

/// libmagic's rules, in the engine's own form.
const RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes"));

/// What nothing is known of.
const UNKNOWN: &str = "application/octet-stream";
/// What only is known to be text.
const PLAIN: &str = "text/plain";

/// Names that the rules give to what `file` gives another.
const PRINTED: [(&str, &str); 3] = [
    ("text/javascript", "application/javascript"),
    // Who allows `image/png` allows an animated one.
    ("image/apng", "image/png"),
    ("application/x-rust-metadata", UNKNOWN),
];

/// What `magic-db` has rules of its own for. `file` has none and goes on: such a text may be HTML
/// to it.
const ADDED: [&str; 4] = ["text/x-rust", "text/x-raku", "text/vnd.typst", "image/x-bitmap"];

/// Names that changed between libmagic's releases, the older first. An operator whose `file` is
/// older writes the older name; a block list with it must not silently stop blocking.
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

/// The rules of file types, loaded once (about 20 ms and 7 MiB each for the shelves and for the whole).
pub struct Detector {
    shelves: Shelves,
    /// All rules together, loaded when a file leads there: few do, music with a tag in front above all, and what looks like a
    /// table of two columns. They take what the shelves take once more, from then on.
    whole: OnceLock<Option<MagicDb>>,
    /// All names the rules can give, once somebody asks for one.
    names: OnceLock<HashSet<String>>,
    /// Those found so far, which many media share for as long as they are remembered. No more than
    /// there are names in the rules.
    found: Mutex<HashSet<MediaType>>,
}

fn load(mut bytes: &[u8]) -> Result<MagicDb, LoadError> {
    MagicDb::deserialize(&mut bytes).map_err(|e| LoadError(e.to_string()))
}

/// The rules compiled into this binary could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the built-in rules of file types cannot be loaded: {0}")]
pub struct LoadError(String);

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").finish_non_exhaustive()
    }
}

impl Detector {
    /// Loads the rules. Blocks while it computes.
    pub fn new() -> Result<Self, LoadError> {
        let shelves = Shelves::load()?;
        Ok(Self {
            shelves,
            whole: OnceLock::new(),
            names: OnceLock::new(),
            found: Mutex::default(),
        })
    }

    fn whole(&self) -> Option<&MagicDb> {
        // Were they broken, no build would have passed its tests.
        self.whole.get_or_init(|| load(RULES).ok()).as_ref()
    }

    /// The same, on a thread of its own.
    pub async fn load() -> Result<Self, LoadError> {
        let loaded = tokio::task::spawn_blocking(Self::new).await;
        loaded.map_err(|e| LoadError(e.to_string())).flatten()
    }

    /// What the file is. Reads by offset: the file's own position stays where it is. Blocks on the
    /// disk.
    pub fn detect(&self, file: &File) -> io::Result<MediaType> {
        let size = file.metadata()?.len();
        let head = read(file, 0, usize::try_from(size).unwrap_or(HEAD).min(HEAD))?;
        let tail = read(file, (head.len() as u64).max(size.saturating_sub(TAIL as u64)), TAIL)?;
        let window = Window::new(&head, &tail, size);
        Ok(self.shared(self.examine(&window, |at, len| read(file, at, len))))
    }

    /// What a file of these bytes is.
    #[must_use]
    pub fn detect_bytes(&self, bytes: &[u8]) -> MediaType {
        let head = bytes.get(..HEAD).unwrap_or(bytes);
        let tail = bytes.get(head.len().max(bytes.len().saturating_sub(TAIL))..);
        let window = Window::new(head, tail.unwrap_or_default(), bytes.len() as u64);
        self.shared(self.examine(&window, |at, len| {
            let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            Ok(from.get(..len).unwrap_or(from).to_vec())
        }))
    }

    /// The same, in memory that all who have it share.
    fn shared(&self, found: MediaType) -> MediaType {
        let mut before = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = before.get(&found) {
            return shared.clone();
        }
        before.insert(found.clone());
        found
    }

    /// Whether some file can have this type, so that naming it in a list means something.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let name = essence(name).to_ascii_lowercase();
        // Not to be kept for this alone.
        let names = self.names.get_or_init(|| load(RULES).as_ref().map(names).unwrap_or_default());
        names.contains(&name) || RENAMED.iter().any(|(old, _)| *old == name)
    }

    fn examine(
        &self,
        window: &Window<'_>,
        read: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> MediaType {
        if window.head.is_empty() {
            return MediaType(UNKNOWN.into());
        }
        // No rule wants a byte order mark, and many want to begin the file.
        let window = window.without(b"\xef\xbb\xbf");
        let head = window.head;
        if let Some(name) = large_json(&window) {
            return MediaType(name.into());
        }

        let text = decoded(head);
        let end = if text.is_some() || begins_json(head) { TEXT } else { HEAD };
        let window = window.cut(end);
        let mut name = self.run(window);
        if matches!(&*name, UNKNOWN | PLAIN) {
            // libmagic asks the rules of texts about a text in another encoding than UTF-8 too; the
            // engine does not.
            name = match text {
                Some(Cow::Borrowed(_)) => PLAIN.into(),
                Some(Cow::Owned(text)) => {
                    match self.run(Window::new(text.as_bytes(), &[], text.len() as u64)) {
                        name if name == UNKNOWN => PLAIN.into(),
                        name => name,
                    }
                }
                None => UNKNOWN.into(),
            };
        }
        corrected(&name, &window, read)
    }

    /// What the first rule says that has anything to say. None where the engine gives up.
    fn first(&self, window: Window<'_>) -> Option<String> {
        // Shelves look at rules behind the first that holds as well, so they may be out of work where all rules in their order
        // are not; and all rules begin with all of it: what a file is must not hang on how its rules are laid out.
        let shelved = catch_unwind(AssertUnwindSafe(|| self.shelves.first(window)));
        shelved.ok().flatten().or_else(|| {
            let all = self.whole()?.first_magic(&mut window.clone(), None).ok()?;
            Some(all.mime_type().to_owned())
        })
    }

    /// The rules' answer; [`UNKNOWN`] where they cannot come to one.
    fn run(&self, window: Window<'_>) -> String {
        // A panic in the engine must not take the request along. It has no unsafe code, and of the
        // rules it borrows nothing changes but the regular expressions' caches, which are made for
        // that.
        catch_unwind(AssertUnwindSafe(|| {
            let first = self.first(window)?;
            // Since 5.45 `file` wants three columns of a CSV file: with two, prose with a comma in
            // each line is one.
            let narrow = columns(window.head) < 3;
            let no = |name: &str| ADDED.contains(&name) || narrow && name == "text/csv";
            if !no(&first) {
                return Some(first);
            }
            let all = self.whole()?.all_magics(&mut window.clone()).ok()?;
            let mut names = all.iter().map(Magic::mime_type);
            let next = names.find(|name| !no(name) && !matches!(*name, UNKNOWN | PLAIN));
            Some(next.unwrap_or(PLAIN).to_owned())
        }))
        .ok()
        .flatten()
        .unwrap_or_else(|| UNKNOWN.to_owned())
    }
}

/// All names the rules can give. The engine does not list them but can be serialized, so they are
/// taken from there.
fn names(db: &MagicDb) -> HashSet<String> {
    // That cannot fail: it is plain data. Were it otherwise, a test of names would tell.
    let rules = serde_json::to_string(db).unwrap_or_default();
    let given = rules.split(r#""mimetype":""#).skip(1).filter_map(|rest| rest.split('"').next());
    // What the engine knows without a rule.
    let built_in = [UNKNOWN, PLAIN, "application/json", "application/x-ndjson", "text/csv"];
    given
        .chain(built_in)
        .chain(["application/x-tar", "application/x-pie-executable", "font/sfnt"])
        .filter(|name| !ADDED.contains(name))
        .map(|name| MediaType::printed(name).as_str().to_ascii_lowercase())
        .collect()
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
        // A Mach-O file for several machines leads the engine around until it gives up. A Java
        // class has the same first bytes, and its version, above 43, where the other counts the
        // machines.
        UNKNOWN if head.starts_with(b"\xca\xfe\xba\xbe") && be32(head, 4) < 43 => {
            "application/x-mach-binary"
        }
        // The rule has its name behind a condition that the usual version does not meet.
        UNKNOWN if head.starts_with(b"\0asm") => "application/wasm",
        // The rule wants a table's name where the engine does not look for it.
        UNKNOWN if head.starts_with(b"\0\x01\0\0\0") && head.get(12..16).is_some_and(is_tag) => {
            "font/sfnt"
        }
        UNKNOWN if head.starts_with(b"MSCF\0\0\0\0") => "application/vnd.ms-cab-compressed",
        // The rules know these documents by a class that not every program writes; libmagic looks
        // into them.
        UNKNOWN | "application/x-ole-storage" if head.starts_with(OLE) => {
            ole(head, read).unwrap_or("application/x-ole-storage")
        }
        PLAIN if first_line(head).is_some_and(|line| interpreter(line) == b"perl") => "text/x-perl",
        // libmagic tells programs from libraries in code, not by rules.
        "application/x-sharedlib" if is_pie(head, read).unwrap_or(false) => {
            "application/x-pie-executable"
        }
        name => name,
    })
}

/// How the older office documents begin.
const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// What an OLE document is by the streams that its directory names first.
fn ole(head: &[u8], read: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> Option<&'static str> {
    const ENTRY: usize = 128;
    const STREAMS: [(&str, &str); 5] = [
        ("WordDocument", "application/msword"),
        ("Workbook", "application/vnd.ms-excel"),
        ("Book", "application/vnd.ms-excel"),
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
        ("__properties_version1.0", "application/vnd.ms-outlook"),
    ];
    let sector = u64::from(u32::from_le_bytes(*head.get(48..)?.first_chunk()?)) + 1;
    let shift = u32::from(u16::from_le_bytes(*head.get(30..)?.first_chunk()?));
    let directory = read(sector.checked_mul(1_u64.checked_shl(shift)?)?, 32 * ENTRY).ok()?;
    directory.chunks_exact(ENTRY).find_map(|entry| {
        let units = entry.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair));
        let name = units.take_while(|unit| *unit != 0);
        STREAMS.iter().find(|(of, _)| name.clone().eq(of.encode_utf16())).map(|(_, mime)| *mime)
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

/// Whether an ELF object is a program that may be loaded anywhere: its dynamic section says so.
/// Nothing where the headers cannot be read.
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

/// JSON larger than the engine is given of a text (it would need the end of it): whether it is JSON
/// as far as it is known, read without building anything.
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

/// The beginning of a text as UTF-8 without a byte order mark, by libmagic's ideas of what a text
/// is: one of the Unicode encodings, or bytes of which none is a control character that texts do
/// not have. Whatever those mean, each becomes one character: no rule looks for letters beyond
/// ASCII.
fn decoded(head: &[u8]) -> Option<Cow<'_, str>> {
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
    if !cut.iter().all(|b| is_text(char::from(*b))) {
        return None;
    }
    // As UTF-8 the rules have seen it.
    Some(match str::from_utf8(whole_characters(cut)) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(cut.iter().map(|b| char::from(*b)).collect()),
    })
}

/// libmagic's table of what bytes occur in texts: bell to carriage return, escape, and all that is
/// printed somewhere.
fn is_text(c: char) -> bool {
    matches!(u32::from(c), 7..=13 | 27 | 32..=126 | 128..=0xfffd | 0x1_0000..)
}

#[cfg(test)]
mod tests;
