//! The prepared form of rules, which the service creates once and each evaluator loads without compiling.
//!
//! The form begins with [`PREPARED_BY`], a byte that is 1 if rules depend on the position of an object in the media file,
//! and the number of parts (32 bits, little endian). Each part is the engine's own
//! serialization of one scanner behind a header: its length in bytes (64 bits), its number of rules (32 bits), the
//! SHA-256 digest of their names, and the SHA-256 digest of the byte before the parts and the serialization.
//!
//! The engine reads lists of at most 1 024 rules and silently ignores the rest, so a reader compares the restored rules
//! with the header, and the service compares its own output once more, byte for byte ([`is_restorable`]). The engine
//! trusts the serialization: changed bytes can cause panics and invalid strings. The second digest rejects them first.

use std::io;

use boreal::{Scanner, module::Console, scanner::DeserializeParams};
use sha2::{Digest, Sha256};

/// Version marker. Readers reject every other value, because the format of the engine's serialization is not stable. A
/// test compares the versions with the lock file.
pub(crate) const PREPARED_BY: &[u8] = b"mcs-evaluator 0.1.0, form 4, boreal 1.4.0\n";

/// Serializes scanners, each as one part.
///
/// # Errors
/// If the engine cannot serialize a scanner, or a length does not fit the header.
pub(crate) fn encode(parts: &[Scanner], depends_on_position: bool) -> io::Result<Vec<u8>> {
    let mut prepared = PREPARED_BY.to_vec();
    prepared.push(depends_on_position.into());
    prepared.extend(u32::try_from(parts.len()).map_err(io::Error::other)?.to_le_bytes());
    for scanner in parts {
        let mut bytes = Vec::new();
        scanner.to_bytes(&mut bytes)?;
        let RuleInventory { rules, digest } = RuleInventory::new(scanner)?;
        prepared.extend(u64::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
        prepared.extend(rules.to_le_bytes());
        prepared.extend(digest);
        prepared.extend(part_digest(depends_on_position, &bytes));
        prepared.extend(bytes);
    }
    Ok(prepared)
}

/// Reads the prepared form, one scanner at a time.
///
/// # Errors
/// If the form is of another version or has no parts. An item is an error if its part is truncated or changed, if the
/// engine restores rules other than those compiled, or if bytes follow the last part.
pub(crate) fn restore(prepared: &[u8]) -> io::Result<PreparedParts<'_>> {
    let Some(rest) = prepared.strip_prefix(PREPARED_BY) else {
        return Err(io::Error::other(
            "they were prepared by another version of this program; restart the service",
        ));
    };
    let mut parts = PreparedParts { depends_on_position: true, remaining: 0, rest };
    let [depends_on_position] = parts.read_array()?;
    if depends_on_position > 1 {
        return Err(invalid("an unknown flag"));
    }
    parts.depends_on_position = depends_on_position == 1;
    parts.remaining = u32::from_le_bytes(parts.read_array()?);
    if parts.remaining == 0 {
        return Err(invalid("no parts"));
    }
    Ok(parts)
}

/// Iterator over the scanners of a prepared form.
#[derive(Debug)]
pub(crate) struct PreparedParts<'a> {
    depends_on_position: bool,
    remaining: u32,
    rest: &'a [u8],
}

impl<'a> PreparedParts<'a> {
    /// Returns whether rules use variables whose values differ between objects with the same content.
    pub(crate) fn depends_on_position(&self) -> bool {
        self.depends_on_position
    }

    fn read_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    /// Returns the serialization of the next part and its scanner.
    fn next_part(&mut self) -> io::Result<(&'a [u8], Scanner)> {
        let length =
            usize::try_from(u64::from_le_bytes(self.read_array()?)).map_err(|_| truncated())?;
        let expected = RuleInventory {
            rules: u32::from_le_bytes(self.read_array()?),
            digest: self.read_array()?,
        };
        let expected_digest: [u8; 32] = self.read_array()?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(truncated)?;
        self.rest = rest;
        if self.remaining == 0 && !rest.is_empty() {
            return Err(invalid("bytes after the last part"));
        }
        if expected_digest != part_digest(self.depends_on_position, bytes) {
            return Err(invalid("they were changed after they were compiled"));
        }
        let mut params = DeserializeParams::default();
        params.add_module(console());
        let scanner = Scanner::from_bytes_unchecked(bytes, params)?;
        if RuleInventory::new(&scanner)? == expected {
            Ok((bytes, scanner))
        } else {
            Err(invalid("the engine restored other rules than were compiled"))
        }
    }
}

impl Iterator for PreparedParts<'_> {
    type Item = io::Result<Scanner>;

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let part = self.next_part();
        if part.is_err() {
            // The start of the next part is unknown.
            self.remaining = 0;
        }
        Some(part.map(|(_, scanner)| scanner))
    }
}

/// Returns whether the engine restores exactly this scanner: the restored scanner has the same serialization. The
/// comparison covers all lists whose length the engine limits, including those in conditions.
pub(crate) fn is_restorable(scanner: &Scanner) -> io::Result<bool> {
    let prepared = encode(std::slice::from_ref(scanner), true)?;
    let mut parts = restore(&prepared)?;
    parts.remaining = 0;
    let Ok((bytes, restored)) = parts.next_part() else { return Ok(false) };
    let mut second = Vec::with_capacity(bytes.len());
    restored.to_bytes(&mut second)?;
    Ok(second == bytes)
}

/// Returns the module `console`, which discards the messages of rules.
pub(crate) fn console() -> Console {
    Console::with_callback(|_line| {})
}

/// Number of the rules of a scanner, including private and global rules, and digest of their names and kinds.
#[derive(PartialEq, Eq)]
struct RuleInventory {
    rules: u32,
    digest: [u8; 32],
}

impl RuleInventory {
    fn new(scanner: &Scanner) -> io::Result<Self> {
        let mut rules = 0_u32;
        let mut digest = Sha256::new();
        let mut namespace = None;
        for rule in scanner.rules() {
            rules = rules.checked_add(1).ok_or_else(|| invalid("too many rules"))?;
            // The path of a file: hashed once for consecutive rules of the same file.
            if namespace != Some(rule.namespace) {
                namespace = Some(rule.namespace);
                digest.update(rule.namespace);
                digest.update([0]);
            }
            digest.update(rule.name);
            digest.update([1, u8::from(rule.is_private), u8::from(rule.is_global)]);
        }
        Ok(Self { rules, digest: digest.finalize().into() })
    }
}

/// Returns the digest of a part's serialization and the byte before the parts.
fn part_digest(depends_on_position: bool, bytes: &[u8]) -> [u8; 32] {
    let digest = Sha256::new().chain_update([u8::from(depends_on_position)]);
    digest.chain_update(bytes).finalize().into()
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "truncated")
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
