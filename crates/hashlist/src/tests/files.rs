//! Files by their paths, and the messages of errors.

use std::error::Error as _;

use super::*;
use ListAction::{Allow, Block};

#[test]
fn lists_are_named_after_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my list.txt");
    fs::write(&path, format!("{EICAR_SHA256} Eicar\n")).unwrap();
    let mut builder = HashListBuilder::new();
    let summary = builder.add_file(Block, &path).unwrap();
    let expected = ListSummary { list: "my list.txt".to_owned(), used: 1, total: 1 };
    assert_eq!(summary, expected);
    assert_eq!(prepare(builder).lookup(&eicar()).unwrap().list, "my list.txt");
}

#[test]
fn errors_have_the_path_and_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = HashListBuilder::new();
    let mut message = |action, name: &str, content: Option<&str>| {
        let path = directory.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = builder.add_file(action, &path).unwrap_err();
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}").replace(directory.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        message(Block, "missing", None),
        "DIR/missing cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        message(Block, "", None),
        "DIR/: not a regular file; list each file by its own path"
    );
    assert_eq!(
        message(Block, "a.txt", Some("# list\nabc\n")),
        "DIR/a.txt, line 2: found 3 characters, expected a SHA-256 (64 hexadecimal digits), a SHA-1 (40 digits), or an MD5 \
         (32 digits) and the size of the file as MD5:SIZE; a name follows after a space, and a comment starts with #"
    );
    assert_eq!(
        message(Block, "a.txt", Some(EICAR_MD5)),
        "DIR/a.txt, line 1: an MD5 without the size of the file; write MD5:SIZE, or MD5:* for files of any size"
    );
    assert_eq!(
        message(Allow, "a.txt", Some(EICAR_SHA1)),
        "DIR/a.txt, line 1: allow lists accept only SHA-256, because different files can be made with equal MD5 or SHA-1; write \
         the SHA-256 of the file (64 hexadecimal digits)"
    );
    assert_eq!(
        message(Allow, "a.hsb", Some("")),
        "DIR/a.hsb: a ClamAV database as an allow list; an allow list is a text file with one SHA-256 (64 hexadecimal digits) \
         in each line"
    );
    assert_eq!(
        message(Block, "a.cvd", Some("x")),
        "DIR/a.cvd: the database is damaged: invalid header; download it again"
    );
    let member = HashListError::InvalidLine {
        path: Path::new("/a.cvd").to_owned(),
        member: Some("a.hdb".to_owned()),
        line: 7,
        problem: LineProblem::TooLong,
    };
    assert_eq!(member.to_string(), "/a.cvd: a.hdb, line 7: longer than 4096 bytes");
}

#[test]
fn pipes_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    // A socket is the special file that the standard library can create.
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = HashListBuilder::new().add_file(Block, &path).unwrap_err();
    let is_special =
        matches!(error, HashListError::InvalidFile { problem: FileProblem::NotRegular, .. });
    assert!(is_special, "{error:?}");
}
