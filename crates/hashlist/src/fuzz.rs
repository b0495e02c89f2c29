//! Fuzz target: list files, and prepared lists. `cargo test` replays the kept corpus.

use std::borrow::Cow;

use crate::{
    Digests, FileDigest, HashEntry, HashListBuilder, HashLists, ListAction,
    error::LineProblem,
    key::BlockClasses,
    layout::{HeaderCounts, Layout, SectionDigests, TableCounts, encode_header},
    list_file::read_file,
    list_reader::EntrySink,
    model::ModelLists,
};

/// Reads one input. Its first byte selects what the rest is.
///
/// # Panics
/// If prepared lists differ from a simple search of all entries.
pub fn input(bytes: &[u8]) {
    let Some((kind, content)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => read_list(ListAction::Block, "list.txt", content),
        1 => read_list(ListAction::Allow, "list.txt", content),
        2 => read_list(ListAction::Block, "list.hdb", content),
        // A database with a valid header.
        3 => {
            let mut database = b"ClamAV-VDB:time:1:2:90:X:X:builder:1".to_vec();
            database.resize(512, b' ');
            database.extend(content);
            read_list(ListAction::Block, "list.cvd", &database);
        }
        4 => read_list(ListAction::Block, "list.cld", content),
        5 => use_prepared(content),
        _ => use_prepared(&with_valid_header(content)),
    }
}

fn read_list(action: ListAction, name: &str, content: &[u8]) {
    let mut model = ModelLists::default();
    let mut sink = ModelSink { action, model: &mut model };
    let expected = read_file(action, name, content, &mut sink);
    let mut builder = HashListBuilder::new();
    let added = builder.add_reader(action, name, content);
    assert!(added.is_ok() == expected.is_ok(), "{added:?}, expected {expected:?}");
    match added {
        Ok(summary) => assert!(summary.used <= summary.total, "{summary:?}"),
        // Nothing of a rejected list is used.
        Err(_) => model = ModelLists::default(),
    }
    let prepared = builder.prepare().unwrap_or_default();
    let lists = HashLists::from_prepared(prepared);
    assert!(lists.is_ok(), "{lists:?}");
    if let Ok(lists) = lists {
        model.compare(&lists);
    }
}

/// Looks up digests that occur in the bytes.
fn use_prepared(prepared: &[u8]) {
    let Ok(lists) = HashLists::from_prepared(prepared) else { return };
    for window in prepared.windows(32).step_by(2) {
        let Some(sha256) = window.first_chunk() else { return };
        let digests = Digests {
            sha256: *sha256,
            sha1: window.first_chunk().copied(),
            md5: window.first_chunk().copied(),
            size: sha256[0].into(),
        };
        let found = lists.lookup(&digests);
        assert!(found.is_none_or(|found| found.list.len() <= prepared.len()), "{found:?}");
    }
}

/// Returns a prepared form with correct checksums, and sections from the bytes.
fn with_valid_header(content: &[u8]) -> Vec<u8> {
    let Some((numbers, sections)) = content.split_first_chunk::<7>() else { return Vec::new() };
    let [classes, block, block_names, allow, allow_names, lists, text] = numbers.map(u64::from);
    let counts = HeaderCounts {
        classes: BlockClasses::from_bits(classes).unwrap_or_default(),
        block: TableCounts { entries: block, names: block_names },
        allow: TableCounts { entries: allow, names: allow_names },
        lists,
        text,
    };
    let Some(layout) = Layout::new(&counts) else { return Vec::new() };
    let mut prepared = vec![0; layout.block.index.start];
    prepared.extend(sections);
    prepared.resize(layout.text.end, 0);
    let header = encode_header(counts, &SectionDigests::compute(&prepared, &layout));
    prepared.iter_mut().zip(header).for_each(|(target, byte)| *target = byte);
    prepared
}

struct ModelSink<'a> {
    action: ListAction,
    model: &'a mut ModelLists,
}

impl EntrySink for ModelSink<'_> {
    fn add(&mut self, entry: &HashEntry<'_>) -> Result<bool, LineProblem> {
        if self.action == ListAction::Allow && !matches!(entry.digest, FileDigest::Sha256(_)) {
            return Err(LineProblem::NotAllowable);
        }
        let is_used = self.action == ListAction::Allow || !entry.digest.is_of_empty_file();
        if is_used {
            let name = Cow::Owned(entry.name.clone().into_owned());
            self.model.0.push((self.action, HashEntry { name, ..*entry }));
        }
        Ok(is_used)
    }
}

#[cfg(test)]
#[test]
fn kept_corpus_passes() {
    mcs_testing::replay_corpus("hashlist", input);
}
