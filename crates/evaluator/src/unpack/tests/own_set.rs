//! All samples together, which the service is compared with other scanners on.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use super::{
    ContainerSample, Expected, ar, arj, binhex, cab, cms, cpio, disks, embedded, iso, lzh, mail,
    old_streams, ole, onenote, pdf, rar, rpm, rtf, seven, streams, tar, text, tnef, zip,
};

/// Directory that the samples are written to, for other scanners.
const DIRECTORY: &str = "MCS_CONTAINER_SET";

fn own_set() -> Vec<ContainerSample> {
    let sets = [
        zip::samples(),
        seven::samples(),
        cpio::samples(),
        ar::samples(),
        cab::samples(),
        rpm::samples(),
        lzh::samples(),
        arj::samples(),
        rar::samples(),
        streams::samples(),
        tar::samples(),
        iso::samples(),
        text::samples(),
        ole::samples(),
        rtf::samples(),
        pdf::samples(),
        mail::samples(),
        tnef::samples(),
        onenote::samples(),
        cms::samples(),
        disks::samples(),
        old_streams::samples(),
        binhex::samples(),
        embedded::samples(),
    ];
    sets.into_iter().flatten().collect()
}

#[test]
fn own_set_has_distinct_names() {
    let set = own_set();
    let names: BTreeSet<_> = set.iter().map(|sample| &sample.name).collect();
    assert_eq!(names.len(), set.len());
    let payloads = set.iter().filter(|sample| sample.expected == Expected::Payload).count();
    assert!(payloads >= 120, "{payloads} of {} with the payload", set.len());
}

/// Writes the samples, if a directory is set. The names of those with the payload begin with "payload-".
#[test]
#[expect(clippy::disallowed_methods, reason = "a parameter of a test")]
fn own_set_is_written_for_other_scanners() {
    let Ok(directory) = env::var(DIRECTORY) else { return };
    let directory = PathBuf::from(directory);
    fs::create_dir_all(&directory).unwrap();
    for sample in own_set() {
        let class = match sample.expected {
            Expected::Payload => "payload".to_owned(),
            Expected::Note(kind) => format!("{kind:?}").to_lowercase(),
            Expected::Clean => "clean".to_owned(),
        };
        fs::write(
            directory.join(format!("{class}-{}", sample.name.replace(['/', ' '], "-"))),
            sample.bytes,
        )
        .unwrap();
    }
}
