//! Comparison with the programs that people unpack archives with: whatever one of them extracts without an error must
//! have been examined, or the media file must not be clean.
//!
//! The archives are samples, and archives that the programs wrote, with random changes. The seed of a failing archive is
//! in the message.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{
    Collected, ar, arj, cab, collect, cpio, disks, iso, lzh, old_streams, rar, rpm, seven, streams,
    tar, zip,
};
use crate::report::NoteKind;

mod programs;

use programs::{Extracted, Programs};

/// Number of archives. `DIFFERENTIAL_ARCHIVES` replaces it for longer runs.
const ARCHIVES: u64 = 2_000;

/// Maximum size of the samples that are changed, bytes: bombs and large archives take too long.
const MAX_SAMPLE: usize = 64 * 1024;

/// Maximum number of programs that write a file of zeros which was not examined, per thousand archives.
const MAX_HOLES: u64 = 2;

#[test]
#[expect(clippy::disallowed_methods, reason = "a parameter of a test")]
fn everything_that_common_programs_extract_is_examined() {
    let archives = std::env::var("DIFFERENTIAL_ARCHIVES");
    let archives = archives.map_or(ARCHIVES, |number| number.parse().unwrap());
    let Some(mut programs) = Programs::start() else { return };
    let samples = [
        zip::samples(),
        seven::samples(),
        tar::samples(),
        cpio::samples(),
        ar::samples(),
        cab::samples(),
        rpm::samples(),
        lzh::samples(),
        arj::samples(),
        rar::samples(),
        iso::samples(),
        streams::samples(),
        disks::samples(),
        old_streams::samples(),
    ];
    let samples = samples.into_iter().flatten().map(|sample| sample.bytes);
    let samples: Vec<_> = samples.filter(|bytes| bytes.len() <= MAX_SAMPLE).collect();
    let written = programs.write_archives();
    let mut comparison = ArchiveComparison::default();
    for seed in 0..archives {
        let mut random = Random(seed);
        // Most changed samples are refused as inconsistent.
        let originals = if random.below(4) == 0 { &samples } else { &written };
        let bytes = changed(originals, &mut random);
        let collected = collect(&bytes);
        if is_refused(&collected) {
            continue;
        }
        let objects = collected.objects.iter().map(|(_, object)| digest(object));
        let examined = objects.chain([digest(b"")]).collect();
        for extracted in programs.extract(&bytes) {
            comparison.add(seed, &extracted, &examined);
        }
    }
    let ArchiveComparison { files, holes, failures } = comparison;
    // Otherwise the programs do not run, or the changes destroy every archive.
    assert!(files as u64 > archives, "{files} files of {archives} archives");
    assert!(holes <= 1 + archives * MAX_HOLES / 1000, "{holes} files of zeros");
    assert!(failures.is_empty(), "{} of {archives}: {failures:#?}", failures.len());
}

/// What the programs extracted.
#[derive(Default)]
struct ArchiveComparison {
    files: usize,
    /// Number of times that a program wrote a file of zeros that was not examined. bsdtar does where it finds no data for
    /// a size that a header states: no danger, because a file of zeros has no content.
    holes: u64,
    failures: Vec<String>,
}

impl ArchiveComparison {
    fn add(&mut self, seed: u64, extracted: &Extracted, examined: &BTreeSet<[u8; 32]>) {
        let Extracted { program, digests, holes } = extracted;
        self.files += digests.len();
        let missing: BTreeSet<_> = digests.difference(examined).copied().collect();
        if !missing.is_subset(holes) {
            self.failures.push(format!("seed {seed}: {program}"));
        } else if !missing.is_empty() {
            self.holes += 1;
        }
    }
}

/// Returns whether the default policies refuse the media file, whatever the rules find.
fn is_refused(collected: &Collected) -> bool {
    [NoteKind::Encrypted, NoteKind::Limit, NoteKind::Inconsistent]
        .into_iter()
        .any(|kind| collected.note(kind).is_some())
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns a sample with up to three changes.
fn changed(samples: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = samples[random.below(samples.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(32)).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x50, 0x7f, 0x80, 0xff][random.below(6)],
            2 => _ = bytes.drain(at..end),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                // Archives of two parts.
                let other = &samples[random.below(samples.len())];
                bytes.extend_from_slice(other);
            }
            _ => bytes[at..end].fill(0),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// A pseudo-random sequence (`splitmix64`), the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((value ^ (value >> 31)) % limit as u64).unwrap()
    }
}
