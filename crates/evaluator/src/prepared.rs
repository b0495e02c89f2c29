//! The prepared form of rules: what the service compiles once and each evaluator loads.
//!
//! The form begins with [`PREPARED_BY`] and the number of parts (32 bits, little endian). Each part is the engine's own
//! serialization of one scanner behind a header: its length in bytes (64 bits), its number of rules (32 bits) and a digest of
//! their names. The engine reads lists of at most 1 024 rules and silently ignores the rest, so a reader compares the rules
//! that it has with the header, and the service compares its own output once more, byte for byte ([`survives`]).

use std::io;

use boreal::{Scanner, module::Console, scanner::DeserializeParams};
use sha2::{Digest, Sha256};

/// Versions that write the form. Readers reject every other value, since the engine's serialization has no stable format. A
/// test compares the versions with the lock file.
pub(crate) const PREPARED_BY: &[u8] = b"mcs-rules 0.1.0, form 2, boreal 1.4.0\n";

/// Serializes scanners, each as one part.
///
/// # Errors
/// The engine's, and lengths that do not fit the header.
pub(crate) fn encode(parts: &[Scanner]) -> io::Result<Vec<u8>> {
    let mut prepared = PREPARED_BY.to_vec();
    prepared.extend(u32::try_from(parts.len()).map_err(io::Error::other)?.to_le_bytes());
    for scanner in parts {
        let mut bytes = Vec::new();
        scanner.to_bytes(&mut bytes)?;
        let Inventory { rules, digest } = Inventory::new(scanner)?;
        prepared.extend(u64::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
        prepared.extend(rules.to_le_bytes());
        prepared.extend(digest);
        prepared.extend(bytes);
    }
    Ok(prepared)
}

/// Reads the prepared form, one scanner at a time.
///
/// # Errors
/// Rejects forms of another version and forms without parts. Items are errors where a part is cut short, where the engine
/// restores other rules than were compiled, and where bytes follow the last part.
pub(crate) fn restore(prepared: &[u8]) -> io::Result<Parts<'_>> {
    let Some(rest) = prepared.strip_prefix(PREPARED_BY) else {
        return Err(io::Error::other(
            "the rules were prepared by another version of this program: restart the service",
        ));
    };
    let mut parts = Parts { left: 0, rest };
    parts.left = u32::from_le_bytes(parts.read_array()?);
    if parts.left == 0 {
        return Err(invalid("there are no rules in them"));
    }
    Ok(parts)
}

/// Iterator over the scanners of a prepared form.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Returns the next part's bytes beside its scanner.
    fn part(&mut self) -> io::Result<(&'a [u8], Scanner)> {
        let length =
            usize::try_from(u64::from_le_bytes(self.read_array()?)).map_err(|_| cut_short())?;
        let expected =
            Inventory { rules: u32::from_le_bytes(self.read_array()?), digest: self.read_array()? };
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        if self.left == 0 && !rest.is_empty() {
            return Err(invalid("there is more than their header names"));
        }
        let mut params = DeserializeParams::default();
        params.add_module(console());
        let scanner = Scanner::from_bytes_unchecked(bytes, params)?;
        if Inventory::new(&scanner)? == expected {
            Ok((bytes, scanner))
        } else {
            Err(invalid("the engine has not restored all of them"))
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = io::Result<Scanner>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let part = self.part();
        if part.is_err() {
            // What follows cannot be located.
            self.left = 0;
        }
        Some(part.map(|(_, scanner)| scanner))
    }
}

/// Whether the engine restores exactly this scanner: serialized once more, the restored one has the same bytes. That covers
/// every list with a maximum length that the engine reads, also those inside conditions.
pub(crate) fn survives(scanner: &Scanner) -> io::Result<bool> {
    let prepared = encode(std::slice::from_ref(scanner))?;
    let mut parts = restore(&prepared)?;
    parts.left = 0;
    let Ok((bytes, restored)) = parts.part() else { return Ok(false) };
    let mut again = Vec::with_capacity(bytes.len());
    restored.to_bytes(&mut again)?;
    Ok(again == bytes)
}

/// Discards messages of rules: no user reads them.
pub(crate) fn console() -> Console {
    Console::with_callback(|_line| {})
}

/// Number and names of a scanner's rules, private and global ones included.
#[derive(PartialEq, Eq)]
struct Inventory {
    rules: u32,
    digest: [u8; 32],
}

impl Inventory {
    fn new(scanner: &Scanner) -> io::Result<Self> {
        let mut rules = 0_u32;
        let mut digest = Sha256::new();
        let mut namespace = None;
        for rule in scanner.rules() {
            rules = rules.checked_add(1).ok_or_else(|| invalid("there are too many of them"))?;
            // A path, and the same for all rules of a file: hashed once for a run of rules.
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

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "they are cut short")
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
