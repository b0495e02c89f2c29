//! Hash lists on whole files and on what is inside them.

use std::{fmt::Write as _, fs, ops::ControlFlow, path::PathBuf};

use md5::Md5;
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

use crate::{
    hash_list_set::HashListSet,
    hash_visitor::HashVisitor,
    report::HashFinding,
    unpack::{MediaObject, UnpackSettings, Visitor, unpack},
};

/// Records the paths of the objects that the rules would examine.
#[derive(Default)]
struct ExaminedPaths(Vec<String>);

impl Visitor for ExaminedPaths {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        self.0.push(object.report_path().join(" > "));
        ControlFlow::Continue(())
    }
}

struct Lists {
    directory: tempfile::TempDir,
    block: Vec<PathBuf>,
    allow: Vec<PathBuf>,
}

impl Lists {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), block: Vec::new(), allow: Vec::new() }
    }

    fn block(mut self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        self.block.push(path);
        self
    }

    fn allow(mut self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        self.allow.push(path);
        self
    }

    fn load(&self) -> HashListSet {
        HashListSet::load(&self.block, &self.allow).unwrap().0
    }

    /// Returns the finding, and the objects that are examined by rules.
    fn find(&self, media: &[u8]) -> (Option<HashFinding>, Vec<String>) {
        self.find_with(media, false)
    }

    fn find_with(&self, media: &[u8], is_observed: bool) -> (Option<HashFinding>, Vec<String>) {
        let lists = self.load();
        let mut examined = ExaminedPaths::default();
        let mut visitor = HashVisitor::new(&lists, Some(&mut examined)).observing(is_observed);
        let notes = unpack(media, &UnpackSettings::default(), &mut visitor);
        assert!(notes.is_empty(), "{notes:?}");
        let finding = visitor.into_finding();
        (finding, examined.0)
    }
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A tar archive with these files.
pub(super) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

const BAD: &[u8] = b"bad content";

#[test]
fn blocked_file_is_found_by_each_kind_of_digest_at_any_depth() {
    let (sha1, md5) = (hex(&Sha1::digest(BAD)), hex(&Md5::digest(BAD)));
    let size = BAD.len();
    let inner = archive(&[("good", b"good"), ("bad", BAD), ("last", b"last")]);
    let outer = archive(&[("inner.tar", &inner)]);
    for (file, line, name) in [
        ("some.txt", sha256(BAD), "some.txt"),
        ("named.txt", format!("{} A name", sha256(BAD)), "A name"),
        ("sha1.txt", sha1.clone(), "sha1.txt"),
        ("md5.txt", format!("{md5}:{size}"), "md5.txt"),
        ("clamav.hdb", format!("{md5}:{size}:Test.Hdb"), "Test.Hdb"),
        ("clamav.hsb", format!("{sha1}:{size}:Test.Hsb"), "Test.Hsb"),
        ("any.hsb", format!("{}:*:Test.Any:73", sha256(BAD)), "Test.Any"),
    ] {
        let lists = Lists::new().block(file, &format!("{line}\n"));
        let found = |path: &[&str]| {
            let path = path.iter().map(|&name| name.to_owned()).collect();
            Some(HashFinding { name: name.to_owned(), path })
        };
        assert_eq!(lists.find(BAD), (found(&[]), vec![]), "{line}");
        assert_eq!(lists.find(&inner).0, found(&["bad"]), "{line}");
        let (finding, examined) = lists.find(&outer);
        assert_eq!(finding, found(&["inner.tar", "bad"]), "{line}");
        assert_eq!(examined, ["", "inner.tar", "inner.tar > good"], "{line}");
        assert_eq!(lists.find(b"good"), (None, vec![String::new()]), "{line}");
    }
}

#[test]
fn observed_hash_does_not_end_the_evaluation() {
    let lists = Lists::new().block("some.txt", &format!("{}\n{}\n", sha256(BAD), sha256(b"last")));
    let media = archive(&[("bad", BAD), ("last", b"last"), ("good", b"good")]);
    let (finding, examined) = lists.find_with(&media, true);
    assert_eq!(finding.unwrap().path, ["bad"]);
    assert_eq!(examined, ["", "bad", "last", "good"]);
}

#[test]
fn md5_of_another_size_does_not_match() {
    let md5 = hex(&Md5::digest(BAD));
    let lists = Lists::new().block("some.txt", &format!("{md5}:{}\n", BAD.len() + 1));
    assert_eq!(lists.find(BAD).0, None);
}

#[test]
fn allowed_file_is_not_examined_but_its_siblings_are() {
    let inner = archive(&[("bad", BAD)]);
    let outer = archive(&[("inner.tar", &inner), ("good", b"good"), ("inner.tar", &inner)]);
    let lists = Lists::new().allow("own.txt", &sha256(&inner)).block("bad.txt", &sha256(BAD));
    let (finding, examined) = lists.find(&outer);
    assert_eq!(finding, None);
    assert!(examined.iter().any(|path| path == "good"), "{examined:?}");
    assert!(!examined.iter().any(|path| path.contains("inner.tar")), "{examined:?}");
    // The whole file is examined: the service decides about it.
    assert_eq!(lists.find(&inner).0.unwrap().path, ["bad"]);
    let with_bad = archive(&[("inner.tar", &inner), ("bad", BAD)]);
    assert_eq!(lists.find(&with_bad).0.unwrap().path, ["bad"]);
}

#[test]
fn block_entry_has_precedence() {
    let (digest, sha1) = (sha256(BAD), hex(&Sha1::digest(BAD)));
    let media = archive(&[("bad", BAD)]);
    for line in [&digest, &sha1] {
        let lists = Lists::new().allow("own.txt", &digest).block("bad.txt", line);
        assert_eq!(lists.find(&media).0.unwrap().name, "bad.txt");
    }
}

#[test]
fn equal_entries_are_an_equal_set() {
    let text = format!("{}\n{}\n", sha256(b"1"), sha256(b"2"));
    let renamed = format!("{} name\n{}\n", sha256(b"2"), sha256(b"1"));
    let set = |block: &str| Lists::new().block("list.txt", block).load();
    assert_eq!(set(&text), set(&renamed));
    assert_ne!(set(&text), set(&sha256(b"1")));
    assert_ne!(set(&text), Lists::new().allow("list.txt", &text).load());
    let debug = format!("{:?}", set(&text));
    assert!(debug.starts_with("2 blocked (") && debug.contains("0 allowed ("), "{debug}");
    let lookup = set(&text).lookup(&Sha256::digest(b"1").into()).map(|entry| entry.action);
    assert_eq!(lookup, Some(crate::ListAction::Block));
}

#[test]
fn sealed_lists_are_checked() {
    let file = mcs_sandbox::sealed("test", b"other content").unwrap();
    assert!(HashListSet::from_sealed(file).is_err());
    let set = Lists::new().block("list.txt", &sha256(BAD)).load();
    let copy = HashListSet::from_sealed(set.prepared().try_clone().unwrap()).unwrap();
    assert_eq!(copy, set);
    assert!(HashListSet::from_sealed(fs::File::open("/dev/null").unwrap()).is_err());
}

#[test]
fn database_is_read_under_either_extension() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("daily.cld"), "no database").unwrap();
    let error = HashListSet::load(&[path("daily.cvd")], &[]).unwrap_err();
    assert_eq!(error.path(), Some(&*path("daily.cld")));
    let error = HashListSet::load(&[path("main.cvd")], &[]).unwrap_err();
    assert_eq!(error.path(), Some(&*path("main.cvd")));
    let error = HashListSet::load(&[], &[path("own.txt")]).unwrap_err();
    assert_eq!(error.path(), Some(&*path("own.txt")));
}
