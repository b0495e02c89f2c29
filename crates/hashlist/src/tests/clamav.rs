//! Records of `ClamAV`.

use super::*;
use ListAction::{Allow, Block};

#[test]
fn records_match() {
    for record in [
        format!("{EICAR_MD5}:68:Eicar"),
        format!("{EICAR_MD5}:*:Eicar:73"),
        format!("{EICAR_SHA1}:68:Eicar"),
        format!("{EICAR_SHA1}:*:Eicar:73"),
        format!("{EICAR_SHA256}:68:Eicar"),
        format!("{EICAR_SHA256}:*:Eicar:73"),
        format!("{EICAR_SHA256}:*:Eicar:73:216"),
        format!("{EICAR_SHA256}:*:Eicar::255"),
        format!("{}:68:Eicar:1", EICAR_SHA256.to_uppercase()),
    ] {
        for (name, content) in
            [("a.hdb", record.clone()), ("a.HSB", format!("# comment\r\n\n{record}\r\n"))]
        {
            let (summary, lists) = read(Block, name, content).unwrap();
            assert_eq!((summary.used, summary.total), (1, 1), "{record}");
            let found = lists.lookup(&eicar()).unwrap();
            assert_eq!((found.list, found.name), (name, Some("Eicar")), "{record}");
        }
    }
}

#[test]
fn sizes_are_compared() {
    for hash in [EICAR_MD5, EICAR_SHA1] {
        let (_, lists) = read(Block, "a.hdb", format!("{hash}:67:Eicar")).unwrap();
        assert_eq!(lists.lookup(&eicar()), None, "{hash}");
        assert!(lists.lookup(&Digests { size: 67, ..eicar() }).is_some(), "{hash}");
    }
}

#[test]
fn unsupported_records_are_counted() {
    let withdrawn = ["215", "1", "", "x"];
    let withdrawn = withdrawn.map(|level| format!("{EICAR_SHA1}:68:Withdrawn:1:{level}\n"));
    let sha512 = format!("{EICAR_SHA256}{EICAR_SHA256}:68:Sha512\n");
    let content = format!("{EICAR_MD5}:68:Eicar\n{}{sha512}", withdrawn.concat());
    let (summary, lists) = read(Block, "a.hsb", content).unwrap();
    assert_eq!((summary.used, summary.total), (1, 6));
    assert_eq!(lists.lookup(&Digests { md5: None, ..eicar() }), None);
}

#[test]
fn invalid_records_are_errors() {
    for record in [
        EICAR_MD5.to_owned(),
        format!("{EICAR_MD5}:68"),
        format!("{EICAR_MD5}::Eicar"),
        format!("{EICAR_MD5}:0:Eicar"),
        format!("{EICAR_MD5}:-68:Eicar"),
        format!("{EICAR_MD5}:68 :Eicar"),
        format!("{EICAR_MD5}:68:Eicar:1:2:3"),
        format!("68:{EICAR_MD5}x:Eicar"),
        format!("x{}:68:Eicar", &EICAR_MD5[1..]),
        ":68:Eicar".to_owned(),
    ] {
        let content = format!("\n{EICAR_MD5}:68:Eicar\n{record}\n");
        let expected = (3, LineProblem::InvalidRecord);
        assert_eq!(line_problem(Block, "a.hdb", content), expected, "{record}");
    }
}

#[test]
fn files_without_usable_records_are_errors() {
    let content = format!("{EICAR_SHA256}{EICAR_SHA256}:68:Sha512\n");
    assert_eq!(file_problem(Block, "a.hsb", content), FileProblem::NoUsableRecord);
    let (summary, _) = read(Block, "a.hsb", "# nothing\n").unwrap();
    assert_eq!((summary.used, summary.total), (0, 0));
}

#[test]
fn records_are_no_allow_list() {
    let content = format!("{EICAR_SHA256}:68:Eicar");
    for name in ["a.hdb", "a.hsb"] {
        assert_eq!(file_problem(Allow, name, &content), FileProblem::AllowDatabase);
    }
}
