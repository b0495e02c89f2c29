//! Import cycles between files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Returns the files of one import cycle, each of which imports the next and the last of which imports the first.
pub(crate) fn find_cycle<'a>(
    imports: &BTreeMap<&'a Path, BTreeSet<&'a Path>>,
) -> Option<Vec<&'a Path>> {
    let mut remaining = imports.clone();
    // Files without an import among the remaining ones are in no cycle.
    loop {
        let files: BTreeSet<&Path> = remaining.keys().copied().collect();
        for targets in remaining.values_mut() {
            targets.retain(|target| files.contains(target));
        }
        remaining.retain(|_, targets| !targets.is_empty());
        if remaining.len() == files.len() {
            break;
        }
    }
    // Each remaining file imports another one, so a walk along the imports ends in a cycle.
    let mut walk = vec![*remaining.keys().next()?];
    loop {
        let next = *remaining[walk.last()?].first()?;
        if let Some(start) = walk.iter().position(|file| *file == next) {
            return Some(walk.split_off(start));
        }
        walk.push(next);
    }
}
