//! No text makes it panic, and what is shown is what was meant.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", value in ".{0,60}") {
        let folder = Folder::new();
        let _ = folder.load_with(&text, &[("MCS_SCAN__TIMEOUT", &value)]);
    }

    #[test]
    fn no_value_makes_it_panic(
        key in prop::sample::select(known()),
        value in prop_oneof![
            ".{0,60}",
            "[0-9]{1,25} ?[smhdywKMGTPi]{0,3}B?( [0-9]{1,20}(s|ms|us|ns))?",
            "[\\[{\"'0-9a-z.:/ =,}\\]-]{0,40}",
        ],
    ) {
        let name = format!("MCS_{}__{}", key.0, key.1).to_uppercase();
        if let Err(errors) = environment(&[(&name, &value)]) {
            prop_assert!(!errors.problems().is_empty());
        }
    }

    #[test]
    fn durations_are_read_as_they_are_shown(millis in 0..=kinds::LONGEST.as_secs() * 1000) {
        let duration = Duration::from_millis(millis);
        let line = format!("result_cache.ttl = \"{}\"", show::duration(duration));
        prop_assert_eq!(Folder::new().good(&line).result_cache.ttl, duration);
    }

    #[test]
    fn sizes_are_read_as_they_are_shown(
        mantissa in 0_u64..=1000,
        unit in prop::sample::select(vec![1, 1000, 1024, 1_000_000, 1 << 20, 1 << 30]),
    ) {
        let bytes = mantissa * unit;
        for line in [show::size(bytes), bytes.to_string()] {
            let line = format!("result_cache.max_file_size = \"{line}\"");
            prop_assert_eq!(Folder::new().good(&line).result_cache.max_file_size, bytes);
        }
    }
}

pub(super) fn known() -> Vec<(&'static str, &'static str)> {
    let reader = Reader::new(Place::Defaults, None);
    Config::read(reader, ROOT).1.known
}

#[test]
fn a_sum_beyond_the_clock_is_refused() {
    let folder = Folder::new();
    for text in ["18446744073709551615s 1000ms", "584542046090y", "99999999999999999999d"] {
        assert!(folder.load(&format!("scan.timeout = \"{text}\"")).is_err());
    }
    for text in ["1.2.3MB", "99999999999999999999999EB", "-1", "1e3", "MB"] {
        assert!(folder.load(&format!("download.max_size = \"{text}\"")).is_err(), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("web.port = {}", "[".repeat(100_000));
    assert!(Folder::new().load(&deep).is_err());
    assert!(environment(&[("MCS_WEB__PORT", &"{a=".repeat(100_000))]).is_err());
}
