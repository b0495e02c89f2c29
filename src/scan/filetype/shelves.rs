//! The rules of file types on shelves, by the first byte that they want, as `build.rs` lays them out: few are looked at for any
//! one file, and the word is that of the first in the order of all. Knows nothing of what a type's name means.

use pure_magic::{Magic, MagicDb, MagicRule, StreamKind};

use super::{LoadError, Window, load};

/// Those that want a certain first byte, by its lower half; others, in two parts by their
/// order; and others for texts.
macro_rules! shelf {
    ($($name:literal),*) => {
        [$(include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-", $name)).as_slice()),*]
    };
}
const BY_FIRST_BYTE: [&[u8]; 16] = shelf![
    "first-0", "first-1", "first-2", "first-3", "first-4", "first-5", "first-6", "first-7",
    "first-8", "first-9", "first-10", "first-11", "first-12", "first-13", "first-14", "first-15"
];
const OTHERS: [&[u8]; 2] = shelf!["other-0", "other-1"];
const TEXTS: [&[u8]; 1] = shelf!["texts"];

/// What a rule of a shelf says that would go on with all rules.
const ELSEWHERE: &str = "(elsewhere)";

/// All of them.
#[derive(Default)]
pub(super) struct Shelves(Vec<Shelf>);

struct Shelf {
    files: Files,
    /// The first of its rules, in the order of all.
    first: usize,
    rules: MagicDb,
}

/// Which a shelf's rules are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    /// Those whose first byte has this lower half.
    Class(u8),
    All,
    Texts,
}

impl Shelf {
    fn load(files: Files, bytes: &[u8]) -> Result<Self, LoadError> {
        let rules = load(bytes)?;
        let first =
            rules.rules().first().and_then(MagicRule::source).and_then(|it| it.parse().ok());
        Ok(Self { files, first: first.unwrap_or(0), rules })
    }
}

impl Shelves {
    /// Blocks while it computes.
    pub(super) fn load() -> Result<Self, LoadError> {
        let by_first_byte = (0..).zip(BY_FIRST_BYTE).map(|(class, it)| (Files::Class(class), it));
        let others = OTHERS.map(|it| (Files::All, it)).into_iter();
        let all = by_first_byte.chain(others).chain(TEXTS.map(|it| (Files::Texts, it)));
        all.map(|(files, it)| Shelf::load(files, it)).collect::<Result<_, _>>().map(Self)
    }

    /// What the first rule says that has anything to say. None where the engine gives up, and where all rules are to be asked.
    pub(super) fn first(&self, mut window: Window<'_>) -> Option<String> {
        let class = window.head.first().map(|byte| Files::Class(byte & 0xf));
        let mut found: Option<(usize, Magic<'_>)> = None;
        let mut unknown = None;
        let mut is_binary = false;
        for shelf in &self.0 {
            let passed_by = match shelf.files {
                Files::Class(_) => Some(shelf.files) != class,
                Files::Texts => is_binary,
                Files::All => false,
            };
            if passed_by || found.as_ref().is_some_and(|(place, _)| *place < shelf.first) {
                continue;
            }
            let magic = shelf.rules.first_magic(&mut window, None).ok()?;
            is_binary = magic.stream_kind() == Some(StreamKind::Binary);
            match magic.source().and_then(|place| place.parse().ok()) {
                Some(place) if found.as_ref().is_none_or(|(before, _)| place < *before) => {
                    found = Some((place, magic));
                }
                Some(_) => {}
                None if magic.is_default() => unknown = Some(magic),
                // What the engine knows without a rule comes before all of them.
                None => return Some(magic.mime_type().to_owned()),
            }
        }
        let first = found.map(|(_, magic)| magic).or(unknown)?;
        let is_elsewhere = first.message_parts().any(|it| it == ELSEWHERE);
        (!is_elsewhere).then(|| first.mime_type().to_owned())
    }
}
