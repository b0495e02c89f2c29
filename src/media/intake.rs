//! Takes a body in, once, as it comes: bounds it, hashes it, decrypts it, writes the plaintext for the
//! script and keeps the body for whoever wants it. Everything here blocks; nothing here knows where
//! the bytes come from.
//!
//! Two copies, because a script that runs as the server's own user can rewrite its file: what is
//! served is the server's. Where the script's file is out of the script's reach, one file is both.

use std::{
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    Body,
    decrypt::{Cipher, Decryption},
    spool::{Reservation, Spool, SpoolFull, SpooledFile},
};

/// Bodies up to this size are held in memory while they come, if they are kept in memory afterwards;
/// larger ones always go by the disk, so that memory is bounded per job whatever the cache may hold.
const LARGEST_IN_MEMORY: u64 = 1 << 20;

/// Where a length was not announced, the budget is taken in steps of this size.
const RESERVATION_STEP: u64 = 1 << 20;

/// Why bytes could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Over `download.max_size`.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The spool's budget is used up.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// Disk full, read-only, gone.
    #[error("the disk failed")]
    Disk(#[source] io::Error),
    /// The ciphertext is not the one that the client's hash names.
    #[error("the ciphertext's SHA-256 is not the one given")]
    HashMismatch,
}

impl From<SpoolFull> for IntakeError {
    fn from(_: SpoolFull) -> Self {
        Self::SpoolFull
    }
}

/// What becomes of a body.
#[derive(Debug)]
pub struct Plan {
    /// Largest body, bytes.
    pub max_size: u64,
    /// Bodies up to this size are kept in memory, bytes.
    pub memory_limit: u64,
    /// Whether a body beyond `memory_limit` is kept too, on the spool.
    pub keep_large: bool,
    /// How the body is opened; none for a plain media.
    pub decryption: Option<Arc<Decryption>>,
    /// Where the plaintext goes; none where its verdict is known already.
    pub script_file: Option<ScriptFile>,
}

/// The file that the script gets.
#[derive(Debug)]
pub struct ScriptFile {
    /// Empty, open for reading and writing.
    pub file: File,
    /// Whether the script can change what is in it.
    pub tamper_proof: bool,
}

/// A body on its way in.
#[derive(Debug)]
pub struct Intake {
    spool: Spool,
    max_size: u64,
    taken: u64,
    body_hash: Sha256,
    kept: Kept,
    decryption: Option<Deciphering>,
    plaintext: Option<PlaintextFile>,
}

/// The server's own copy of the body.
#[derive(Debug)]
enum Kept {
    Memory {
        bytes: Vec<u8>,
        limit: u64,
        keep_large: bool,
    },
    File(File, Reservation),
    /// The script's file is the server's copy too.
    Shared,
    Nothing,
}

struct Deciphering {
    expected: [u8; 32],
    cipher: Cipher,
    plaintext_hash: Sha256,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct PlaintextFile {
    file: File,
    tamper_proof: bool,
    reservation: Reservation,
}

/// A body that is in, whole.
#[derive(Debug)]
pub struct Taken {
    /// The server's copy, unless it was too large to keep.
    pub body: Option<Body>,
    /// Bytes of the body.
    pub size: u64,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// What the script is given; none where none was asked for.
    pub plaintext: Option<Plaintext>,
}

/// A plaintext whose ciphertext's hash has held.
#[derive(Debug)]
pub struct Plaintext {
    /// SHA-256 of the plaintext.
    pub hash: [u8; 32],
    /// For looking into it: the script's file, at no particular position.
    pub file: File,
    /// The script's file's share of the disk; none where the body holds it.
    pub reservation: Option<Reservation>,
}

impl Intake {
    /// Makes room for a body of `announced` bytes (as far as that is known) and begins.
    pub fn begin(spool: &Spool, plan: Plan, announced: Option<u64>) -> Result<Self, IntakeError> {
        if announced.is_some_and(|length| length > plan.max_size) {
            return Err(IntakeError::TooLarge { limit: plan.max_size });
        }
        let announced = announced.unwrap_or(0);
        let plaintext = plan
            .script_file
            .map(|ScriptFile { file, tamper_proof }| {
                let mut reservation = spool.reservation();
                reservation.grow_to(announced)?;
                Ok::<_, SpoolFull>(PlaintextFile { file, tamper_proof, reservation })
            })
            .transpose()?;
        let limit = plan.memory_limit.min(LARGEST_IN_MEMORY);
        let mut intake = Self {
            spool: spool.clone(),
            max_size: plan.max_size,
            taken: 0,
            body_hash: Sha256::new(),
            kept: Kept::Memory {
                bytes: Vec::with_capacity(usize::try_from(announced.min(limit)).unwrap_or(0)),
                limit,
                keep_large: plan.keep_large,
            },
            decryption: plan.decryption.map(|decryption| Deciphering {
                expected: *decryption.ciphertext_hash(),
                cipher: decryption.cipher(),
                plaintext_hash: Sha256::new(),
                buffer: Vec::new(),
            }),
            plaintext,
        };
        // A body that won't fit into memory claims its place on the disk now, before it is downloaded.
        intake.make_room(announced)?;
        Ok(intake)
    }

    /// Takes the next bytes of the body.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), IntakeError> {
        let total = self.taken + chunk.len() as u64;
        if total > self.max_size {
            return Err(IntakeError::TooLarge { limit: self.max_size });
        }
        self.make_room(total)?;
        self.taken = total;
        self.body_hash.update(chunk);
        match &mut self.kept {
            Kept::Memory { bytes, .. } => bytes.extend_from_slice(chunk),
            Kept::File(file, _) => file.write_all(chunk).map_err(IntakeError::Disk)?,
            Kept::Shared | Kept::Nothing => {}
        }
        let plaintext = match &mut self.decryption {
            Some(deciphering) if self.plaintext.is_some() => deciphering.decipher(chunk),
            _ => chunk,
        };
        if let Some(PlaintextFile { file, .. }) = &mut self.plaintext {
            file.write_all(plaintext).map_err(IntakeError::Disk)?;
        }
        Ok(())
    }

    /// Ends the body: the moment at which an encrypted one's hash has to hold.
    pub fn finish(self) -> Result<Taken, IntakeError> {
        let body_hash: [u8; 32] = self.body_hash.finalize().into();
        if let Some(deciphering) = &self.decryption
            && deciphering.expected != body_hash
        {
            return Err(IntakeError::HashMismatch);
        }
        let mut plaintext = match self.plaintext {
            None => None,
            Some(PlaintextFile { file, mut reservation, .. }) => {
                reservation.shrink_to(self.taken);
                let hash = match self.decryption {
                    Some(deciphering) => deciphering.plaintext_hash.finalize().into(),
                    None => body_hash,
                };
                Some(Plaintext { hash, file, reservation: Some(reservation) })
            }
        };
        let body = match self.kept {
            Kept::Memory { bytes, .. } => Some(Body::Memory(bytes.into())),
            Kept::File(file, mut reservation) => {
                reservation.shrink_to(self.taken);
                Some(Body::File(Arc::new(SpooledFile::new(file, self.taken, reservation))))
            }
            Kept::Shared => match &mut plaintext {
                // The body may outlive the job's directory: the share of the disk goes with it.
                Some(Plaintext { file, reservation, .. }) => {
                    let file = file.try_clone().map_err(IntakeError::Disk)?;
                    reservation.take().map(|reservation| {
                        Body::File(Arc::new(SpooledFile::new(file, self.taken, reservation)))
                    })
                }
                None => None,
            },
            Kept::Nothing => None,
        };
        Ok(Taken { body, size: self.taken, body_hash, plaintext })
    }

    /// Sees to it that a body of `total` bytes has its place, in memory or on the disk.
    fn make_room(&mut self, total: u64) -> Result<(), IntakeError> {
        if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
            grow(reservation, total)?;
        }
        if let Kept::Memory { bytes, limit, keep_large } = &self.kept
            && total > *limit
        {
            let shared = self.decryption.is_none()
                && self.plaintext.as_ref().is_some_and(|plaintext| plaintext.tamper_proof);
            self.kept = if !keep_large {
                Kept::Nothing
            } else if shared {
                Kept::Shared
            } else {
                let mut reservation = self.spool.reservation();
                reservation.grow_to(total)?;
                let mut file = self.spool.nameless_file().map_err(IntakeError::Disk)?;
                file.write_all(bytes).map_err(IntakeError::Disk)?;
                Kept::File(file, reservation)
            };
        }
        if let Kept::File(_, reservation) = &mut self.kept {
            grow(reservation, total)?;
        }
        Ok(())
    }
}

/// Grows in steps, so that a body of unknown length does not ask for each chunk; the last step may be
/// smaller than the budget's rest.
fn grow(reservation: &mut Reservation, total: u64) -> Result<(), SpoolFull> {
    if reservation.holds(total) {
        return Ok(());
    }
    reservation.grow_to(total + RESERVATION_STEP).or_else(|_| reservation.grow_to(total))
}

impl Deciphering {
    fn decipher(&mut self, chunk: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(chunk);
        self.cipher.apply(&mut self.buffer);
        self.plaintext_hash.update(&self.buffer);
        &self.buffer
    }
}

impl std::fmt::Debug for Deciphering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deciphering(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use proptest::prelude::*;

    use super::*;

    struct Bench {
        _directory: tempfile::TempDir,
        spool: Spool,
    }

    fn bench(limit: u64) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().to_owned(), limit);
        Bench { _directory: directory, spool }
    }

    fn plan(memory_limit: u64) -> Plan {
        Plan {
            max_size: 1 << 30,
            memory_limit,
            keep_large: true,
            decryption: None,
            script_file: None,
        }
    }

    fn script_file(bench: &Bench, tamper_proof: bool) -> ScriptFile {
        ScriptFile { file: bench.spool.nameless_file().unwrap(), tamper_proof }
    }

    fn content(body: &Body) -> Vec<u8> {
        body.clone().into_memory().unwrap().to_vec()
    }

    fn written(plaintext: &Plaintext) -> Vec<u8> {
        let mut file = &plaintext.file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever the length, the pieces, and where the body is kept: what was encrypted comes back.
        #[test]
        fn decrypting_undoes_encrypting_in_pieces_of_any_size(
            plaintext in proptest::collection::vec(any::<u8>(), 0..5000),
            key in any::<[u8; 32]>(),
            iv in any::<[u8; 8]>(),
            pieces in proptest::collection::vec(1usize..700, 1..20),
            memory_limit in 0u64..5000,
        ) {
            let mut counter = [0; 16];
            counter[..8].copy_from_slice(&iv);
            let mut ciphertext = plaintext.clone();
            Decryption::new(key, counter, [0; 32]).cipher().apply(&mut ciphertext);
            let decryption = Decryption::new(key, counter, sha256(&ciphertext));
            let bench = bench(1 << 30);
            let plan = Plan {
                decryption: Some(Arc::new(decryption)),
                script_file: Some(script_file(&bench, true)),
                ..plan(memory_limit)
            };
            let mut intake = Intake::begin(&bench.spool, plan, None).unwrap();
            let mut rest = &ciphertext[..];
            for size in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, remainder) = rest.split_at((*size).min(rest.len()));
                intake.write(piece).unwrap();
                rest = remainder;
            }
            let taken = intake.finish().unwrap();
            let body = taken.body.unwrap();
            let opened = taken.plaintext.unwrap();
            prop_assert_eq!(content(&body), ciphertext);
            prop_assert_eq!(written(&opened), plaintext.clone());
            prop_assert_eq!(opened.hash, sha256(&plaintext));
            prop_assert_eq!(matches!(body, Body::Memory(_)), taken.size <= memory_limit);
        }
    }

    #[test]
    fn a_hash_that_does_not_hold_gives_no_plaintext() {
        let bench = bench(1 << 20);
        let plan = Plan {
            decryption: Some(Arc::new(Decryption::new([1; 32], [2; 16], [3; 32]))),
            script_file: Some(script_file(&bench, false)),
            ..plan(0)
        };
        let mut intake = Intake::begin(&bench.spool, plan, Some(3)).unwrap();
        intake.write(b"abc").unwrap();
        assert!(matches!(intake.finish(), Err(IntakeError::HashMismatch)));
        assert_eq!(bench.spool.used(), 0);
    }

    #[test]
    fn a_body_is_bounded_by_its_announced_and_by_its_counted_size() {
        let bench = bench(1 << 20);
        let small = || Plan { max_size: 10, ..plan(100) };
        let announced = Intake::begin(&bench.spool, small(), Some(11));
        assert!(matches!(announced, Err(IntakeError::TooLarge { limit: 10 })));
        let mut intake = Intake::begin(&bench.spool, small(), None).unwrap();
        intake.write(b"0123456789").unwrap();
        assert!(matches!(intake.write(b"x"), Err(IntakeError::TooLarge { limit: 10 })));
    }

    #[test]
    fn the_spools_budget_is_taken_before_the_body_comes_and_given_back_after_it_is_served() {
        let bench = bench(1000);
        let begin = |announced| {
            let plan = Plan { script_file: Some(script_file(&bench, false)), ..plan(0) };
            Intake::begin(&bench.spool, plan, announced)
        };
        assert!(matches!(begin(Some(501)), Err(IntakeError::SpoolFull)), "two copies of 501 bytes");
        assert_eq!(bench.spool.used(), 0);
        let mut intake = begin(Some(500)).unwrap();
        assert_eq!(bench.spool.used(), 1000);
        intake.write(&[7; 500]).unwrap();
        let taken = intake.finish().unwrap();
        drop(taken.plaintext);
        assert_eq!(bench.spool.used(), 500, "the body is still to be served");
        drop(taken.body);
        assert_eq!(bench.spool.used(), 0);
        let mut unannounced = begin(None).unwrap();
        unannounced.write(&[7; 500]).unwrap();
        assert!(matches!(unannounced.write(&[7]), Err(IntakeError::SpoolFull)));
    }

    #[test]
    fn a_file_out_of_the_scripts_reach_is_written_once_and_outlives_the_script() {
        let bench = bench(1000);
        let plan = Plan { script_file: Some(script_file(&bench, true)), ..plan(0) };
        let mut intake = Intake::begin(&bench.spool, plan, Some(1000)).unwrap();
        intake.write(&[7; 1000]).unwrap();
        let taken = intake.finish().unwrap();
        drop(taken.plaintext);
        assert_eq!(content(&taken.body.unwrap()), [7; 1000]);
    }

    #[test]
    fn who_wants_only_a_verdict_keeps_no_large_body() {
        let bench = bench(1000);
        let plan = Plan { keep_large: false, ..plan(4) };
        let mut intake = Intake::begin(&bench.spool, plan, None).unwrap();
        intake.write(b"01234").unwrap();
        let taken = intake.finish().unwrap();
        assert!(taken.body.is_none());
        assert_eq!(taken.body_hash, sha256(b"01234"));
    }
}
