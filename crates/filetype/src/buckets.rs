//! The rules, split into buckets by the first byte that they require (see `build.rs`). Few rules are evaluated for any
//! one file, and the result is that of the first matching rule in the overall order.

use pure_magic::{Magic, MagicDb, MagicRule};

use crate::{
    limited_reader::{ContentKind, LimitedReader},
    rules::{LoadError, decode},
};

macro_rules! rule_files {
    ($($name:literal),*) => {
        [$(include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-", $name)).as_slice()),*]
    };
}
/// Rules that require a specific first byte, indexed by the low four bits of that byte.
const BY_FIRST_BYTE: [&[u8]; 16] = rule_files![
    "first-0", "first-1", "first-2", "first-3", "first-4", "first-5", "first-6", "first-7",
    "first-8", "first-9", "first-10", "first-11", "first-12", "first-13", "first-14", "first-15"
];
/// Rules without a required first byte, in two parts by their order.
const OTHERS: [&[u8]; 2] = rule_files!["other-0", "other-1"];

/// Message of rules that would continue with all rules. Must match `ELSEWHERE` in `build.rs`.
const ELSEWHERE: &str = "(elsewhere)";

/// All buckets.
#[derive(Default)]
pub(crate) struct Buckets(Vec<Bucket>);

struct Bucket {
    scope: BucketScope,
    /// Position of the bucket's first rule in the overall order.
    first_position: usize,
    rules: MagicDb,
}

/// Files to which a bucket's rules apply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BucketScope {
    /// Files whose first byte has this lower half.
    FirstByte(u8),
    AllFiles,
}

impl Bucket {
    fn load(scope: BucketScope, bytes: &[u8]) -> Result<Self, LoadError> {
        let rules = decode(bytes)?;
        let position = rules.rules().first().and_then(MagicRule::source);
        let first_position = position.and_then(|position| position.parse().ok()).unwrap_or(0);
        Ok(Self { scope, first_position, rules })
    }
}

impl Buckets {
    /// Decodes all buckets. Takes about 20 ms.
    pub(crate) fn load() -> Result<Self, LoadError> {
        let by_first_byte = (0..)
            .zip(BY_FIRST_BYTE)
            .map(|(half, bytes)| Bucket::load(BucketScope::FirstByte(half), bytes));
        let others = OTHERS.into_iter().map(|bytes| Bucket::load(BucketScope::AllFiles, bytes));
        by_first_byte.chain(others).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the type of the first matching rule with a message.
    ///
    /// Returns `None` if `pure-magic` fails, and if all rules must be evaluated.
    pub(crate) fn first_match(
        &self,
        mut reader: LimitedReader<'_>,
        kind: ContentKind,
    ) -> Option<String> {
        let scope = reader.head.first().map(|byte| BucketScope::FirstByte(byte & 0xf));
        // The best match, with its position in the overall order.
        let mut best: Option<(usize, Magic<'_>)> = None;
        let mut unknown = None;
        for bucket in &self.0 {
            let is_skipped = match bucket.scope {
                BucketScope::FirstByte(_) => Some(bucket.scope) != scope,
                BucketScope::AllFiles => false,
            };
            let is_earlier = |(position, _): &(usize, _)| *position < bucket.first_position;
            if is_skipped || best.as_ref().is_some_and(is_earlier) {
                continue;
            }
            reader = reader.as_kind(kind);
            let magic = bucket.rules.first_magic(&mut reader, None).ok()?;
            match magic.source().and_then(|position| position.parse().ok()) {
                Some(position) if best.as_ref().is_none_or(|(earlier, _)| position < *earlier) => {
                    best = Some((position, magic));
                }
                Some(_) => {}
                None if magic.is_default() => unknown = Some(magic),
                // Types that `pure-magic` detects without a rule precede all rules.
                None => return Some(magic.mime_type().to_owned()),
            }
        }
        let first = best.map(|(_, magic)| magic).or(unknown)?;
        let is_elsewhere = first.message_parts().any(|part| part == ELSEWHERE);
        (!is_elsewhere).then(|| first.mime_type().to_owned())
    }
}
