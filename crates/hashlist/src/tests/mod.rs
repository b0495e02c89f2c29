//! Tests.

use std::{fs, path::Path};

use crate::{
    Digests, FileDigest, FileProblem, HashEntry, HashListBuilder, HashListError, HashLists,
    LineProblem, ListAction, ListSummary, list_reader::ReadError, model::digests_of,
};

mod clamav;
mod database;
mod files;
mod limits;
mod lookup;
mod prepared;
mod text;

/// The EICAR test file: 68 bytes.
const EICAR_MD5: &str = "44d88612fea8a8f36de82e1278abb02f";
const EICAR_SHA1: &str = "3395856ce81f2b7382dee72602f798b642f14140";
const EICAR_SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
const EICAR_SIZE: u64 = 68;

fn digest(hex: &str) -> FileDigest {
    FileDigest::from_hex(hex.as_bytes()).unwrap()
}

/// Returns all digests of the EICAR test file.
fn eicar() -> Digests {
    let mut all = digests_of(&digest(EICAR_SHA256), EICAR_SIZE);
    all.sha1 = digests_of(&digest(EICAR_SHA1), 0).sha1;
    all.md5 = digests_of(&digest(EICAR_MD5), 0).md5;
    all
}

fn entry(hex: &str, size: Option<u64>) -> HashEntry<'static> {
    HashEntry { digest: digest(hex), size, name: "".into() }
}

/// Reads one list.
fn read(
    action: ListAction,
    name: &str,
    content: impl AsRef<[u8]>,
) -> Result<(ListSummary, HashLists<Vec<u8>>), ReadError> {
    let mut builder = HashListBuilder::new();
    let summary = builder.add_reader(action, name, content.as_ref())?;
    Ok((summary, prepare(builder)))
}

fn prepare(builder: HashListBuilder) -> HashLists<Vec<u8>> {
    HashLists::from_prepared(builder.prepare().unwrap()).unwrap()
}

/// Reads an invalid list, and returns the number of the line and the problem.
fn line_problem(action: ListAction, name: &str, content: impl AsRef<[u8]>) -> (u64, LineProblem) {
    match read(action, name, content) {
        Err(ReadError::Line { member: None, line, problem }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

/// Reads a list that cannot be used as a whole.
fn file_problem(action: ListAction, name: &str, content: impl AsRef<[u8]>) -> FileProblem {
    match read(action, name, content) {
        Err(ReadError::File(problem)) => problem,
        other => panic!("{other:?}"),
    }
}
