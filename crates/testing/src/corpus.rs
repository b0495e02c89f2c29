//! Inputs that fuzzing has found.

use std::{fs, path::Path};

/// Runs `check` on each kept input of a fuzz target.
pub fn replay_corpus(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut count = 0;
    for entry in fs::read_dir(corpus.join(target)).unwrap() {
        let path = entry.unwrap().path();
        // A failed test prints its output: the last path is the failing input.
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} inputs");
}
